-- Forget runs whose end has been on record for long enough: every key and field that names them goes. Handles read the record.
-- ARGV: S, kept_ms, run.gen.. (at most 50). Returns {number forgotten, 0|1}; 1: one of them has more parked messages than a call
-- forgets, call again.
--
-- hg1:over    zset run.gen -> when its end was known to be on record; written by the recorder
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local PARTS = {'run', 'state', 'wait', 'ctl', 'spec', 'verdict', 'attempt', 'lease', 'notbefore', 'due', 'result', 'fault', 'cascade',
  'fragment', 'stop', 'timeout', 'decision', 'adopts', 'purse', 'open', 'res', 'held:run'}
local left = 200

-- What is still parked of a run that is over would lie there for ever: its node has an outcome. Returns false where there is more.
local function clear(list)
  while left > 0 do
    local tag = redis.call('LPOP', 'hg1:parked:' .. list)
    if not tag then return true end
    left = left - 1
    local m = read_meta(tag)
    if m and m.w == list then drop(tag, m) end
  end
  return redis.call('EXISTS', 'hg1:parked:' .. list) == 0
end

local forgotten, more = 0, 0
for i = 3, #ARGV do
  local rg = ARGV[i]
  local since = tonumber(redis.call('ZSCORE', 'hg1:over', rg) or NOW + 1)
  local status = redis.call('HGET', 'hg1:run:' .. rg, 'status')
  if status and status ~= 'ended' then
    redis.call('ZREM', 'hg1:over', rg)
  elseif since <= NOW - ARGV[2] then
    if clear('pause:' .. rg) and clear('place:' .. rg) then
      local keys = {}
      for at, part in ipairs(PARTS) do keys[at] = 'hg1:' .. part .. ':' .. rg end
      redis.call('UNLINK', unpack(keys))
      for _, pool in ipairs(redis.call('SMEMBERS', 'hg1:pools')) do redis.call('HDEL', 'hg1:out', 'place:' .. rg .. '|' .. pool) end
      redis.call('ZREM', 'hg1:recheck', 'place:' .. rg)
      redis.call('SREM', 'hg1:paused', 'run:' .. rg)
      redis.call('HDEL', 'hg1:caps', rg)
      redis.call('HDEL', 'hg1:ranks', rg)
      redis.call('HDEL', 'hg1:dead', 'run:' .. rg)
      redis.call('ZREM', 'hg1:over', rg)
      forgotten = forgotten + 1
    else
      more = 1
    end
  end
end
return {forgotten, more}
