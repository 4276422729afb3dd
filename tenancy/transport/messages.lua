-- Messages, queues and incarnations; the page docs/protocol.md says what each key holds.
--
-- hg1:msg       tag -> payload             hg1:meta      tag -> tenant|priority|pool|cost_ms|deliveries|once
-- hg1:once      once-id -> tag             hg1:delayed   zset tag -> due ms
-- hg1:queue:{pool}:{tenant}:{priority}     list of tags, next one at the right end
-- hg1:ready:{pool}, hg1:clock:{pool}, hg1:vft:{pool}     start-time fair queueing (Goyal, Vin, Cheng 1996)
-- hg1:bell:{pool}, hg1:sleepers:{pool}     doorbell tokens, at most one for each sleeper
-- hg1:incarnations zset, hg1:unacked:{inc} tag -> delivery number, hg1:dying list, hg1:worker:{inc}, hg1:serves
local PRIORITIES = {1, 3, 5, 7, 9}

local function live(inc)
  return redis.call('ZSCORE', 'hg1:incarnations', inc)
end

local function holds(inc, tag, delivery)
  return live(inc) and redis.call('HGET', 'hg1:unacked:' .. inc, tag) == delivery
end

local function ring(pool)
  local sleepers = redis.call('ZCOUNT', 'hg1:sleepers:' .. pool, NOW, '+inf')
  if redis.call('LLEN', 'hg1:bell:' .. pool) < sleepers then
    redis.call('LPUSH', 'hg1:bell:' .. pool, '1')
  end
end

local function read_meta(tag)
  local meta = redis.call('HGET', 'hg1:meta', tag)
  if not meta then return nil end
  local tenant, priority, pool, cost, deliveries, once = meta:match('^(.-)|(.-)|(.-)|(.-)|(.-)|(.*)$')
  return {tenant = tenant, priority = priority, pool = pool, cost = cost, deliveries = deliveries, once = once}
end

local function write_meta(tag, m)
  redis.call('HSET', 'hg1:meta', tag,
    m.tenant .. '|' .. m.priority .. '|' .. m.pool .. '|' .. m.cost .. '|' .. m.deliveries .. '|' .. m.once)
end

-- Put a tag in line, first or last, and mark its tenant as waiting.
local function enqueue(tag, m, first)
  redis.call(first and 'RPUSH' or 'LPUSH', 'hg1:queue:' .. m.pool .. ':' .. m.tenant .. ':' .. m.priority, tag)
  if not redis.call('ZSCORE', 'hg1:ready:' .. m.pool, m.tenant) then
    local clock = tonumber(redis.call('GET', 'hg1:clock:' .. m.pool) or 0)
    local finish = tonumber(redis.call('HGET', 'hg1:vft:' .. m.pool, m.tenant) or 0)
    redis.call('ZADD', 'hg1:ready:' .. m.pool, int(math.max(clock, finish)), m.tenant)
  end
  ring(m.pool)
end

-- Forget a message wherever it is; tags left behind in lists are passed over by pop.
local function drop(tag)
  local m = read_meta(tag)
  redis.call('HDEL', 'hg1:msg', tag)
  redis.call('HDEL', 'hg1:meta', tag)
  redis.call('ZREM', 'hg1:delayed', tag)
  if m and m.once ~= '' and redis.call('HGET', 'hg1:once', m.once) == tag then
    redis.call('HDEL', 'hg1:once', m.once)
  end
end

local function drop_once(once)
  local tag = redis.call('HGET', 'hg1:once', once)
  if tag then drop(tag) end
end

local function outstanding(once)
  local tag = redis.call('HGET', 'hg1:once', once)
  return tag and redis.call('HEXISTS', 'hg1:msg', tag) == 1
end

-- Let go of a tag that an incarnation holds: back in line (first), or delayed.
local function release(inc, tag, delay_ms, demote)
  redis.call('HDEL', 'hg1:unacked:' .. inc, tag)
  local m = read_meta(tag)
  if not m then return end
  if demote then
    m.priority = tostring(math.min(tonumber(m.priority) + 2, 9))
    write_meta(tag, m)
  end
  if delay_ms > 0 then
    redis.call('ZADD', 'hg1:delayed', int(NOW + delay_ms), tag)
  else
    enqueue(tag, m, true)
  end
end

-- Declare an incarnation dead: from here on it holds nothing, its leases are over.
local function bury(inc, kind)
  redis.call('ZREM', 'hg1:incarnations', inc)
  local info = redis.call('HGET', 'hg1:worker:' .. inc, 'info') or '{}'
  for _, name in ipairs(cjson.decode(info).tasks or {}) do
    if redis.call('HINCRBY', 'hg1:serves', name, -1) <= 0 then redis.call('HDEL', 'hg1:serves', name) end
  end
  redis.call('DEL', 'hg1:worker:' .. inc)
  redis.call('RPUSH', 'hg1:dying', inc)
  emit({t = kind, inc = inc})
end

-- Give back what the dead held, oldest first in line. Returns moved, more (0/1).
local function give_back(limit)
  local moved = 0
  while moved < limit do
    local inc = redis.call('LINDEX', 'hg1:dying', 0)
    if not inc then break end
    local tags = redis.call('HKEYS', 'hg1:unacked:' .. inc)
    table.sort(tags, function(a, b) return tonumber(a:sub(2)) > tonumber(b:sub(2)) end)
    for _, tag in ipairs(tags) do
      if moved == limit then return moved, 1 end
      release(inc, tag, 0)
      moved = moved + 1
    end
    redis.call('LPOP', 'hg1:dying')
  end
  return moved, redis.call('LLEN', 'hg1:dying') > 0 and 1 or 0
end
