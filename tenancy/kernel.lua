-- What every script starts with: the fence, the clock, the event log.
--
-- ARGV[1]       run_id of the Redis server as the caller knows it
-- hg1:epoch     hash {epoch, server, seq}
-- hg1:events    stream; id epoch-seq, field e = event as JSON
-- hg1:hurry     list of at most one token: somebody waits until what is in the log is on record
--
-- Errors: FENCED when the caller's server is not the epoch's: a restart, rollback or failover
-- happened, or no epoch has been opened yet. Nothing has been changed then.
local EPOCH, NOW
do
  local row = redis.call('HMGET', 'hg1:epoch', 'server', 'epoch')
  if row[1] ~= ARGV[1] then
    return redis.error_reply('FENCED the epoch is bound to another Redis server run')
  end
  EPOCH = row[2]
  local t = redis.call('TIME')
  NOW = t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Whole numbers beyond 14 digits survive: tostring() and cjson would round them. '%d' takes half the time of '%.0f'; its zero of -0 is
-- a plain one (Redis takes "-0" for no integer), which adding 0 makes of the other's.
local function int(n)
  n = n + 0
  return string.format(n % 1 == 0 and n < 2 ^ 62 and n > -2 ^ 62 and '%d' or '%.0f', n)
end

local function emit(event)
  event.at = NOW
  local seq = redis.call('HINCRBY', 'hg1:epoch', 'seq', 1)
  redis.call('XADD', 'hg1:events', EPOCH .. '-' .. seq, 'e', cjson.encode(event))
end

-- The same of an event that its caller wrote as JSON, to be kept byte for byte: `at` is put behind its last field.
local function emit_text(text)
  local seq = redis.call('HINCRBY', 'hg1:epoch', 'seq', 1)
  redis.call('XADD', 'hg1:events', EPOCH .. '-' .. seq, 'e', text:sub(1, -2) .. ',"at":' .. int(NOW) .. '}')
end

-- Have the recorder commit at once, instead of waiting a moment for more to commit with.
local function hurry()
  if redis.call('LLEN', 'hg1:hurry') == 0 then redis.call('LPUSH', 'hg1:hurry', '1') end
end
