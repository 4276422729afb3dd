-- Take the next message: the waiting tenant of least virtual start time, its best priority, its oldest tag.
-- ARGV: S, inc, pool, sleep_ms.
-- Returns {tag, payload, delivery}; {} when there is nothing (inc is then listed as a sleeper for sleep_ms);
-- {'DEAD'} when the incarnation is not live.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local inc, pool = ARGV[2], ARGV[3]
if not live(inc) then return {'DEAD'} end
local ready, vft = 'hg1:ready:' .. pool, 'hg1:vft:' .. pool
redis.call('ZREM', 'hg1:sleepers:' .. pool, inc)

for _, tag in ipairs(redis.call('ZRANGEBYSCORE', 'hg1:delayed', '-inf', int(NOW), 'LIMIT', 0, 200)) do
  redis.call('ZREM', 'hg1:delayed', tag)
  local m = read_meta(tag)
  if m then enqueue(tag, m, false) end
end

local function next_tag(tenant)
  for _, priority in ipairs(PRIORITIES) do
    local tag = redis.call('RPOP', 'hg1:queue:' .. pool .. ':' .. tenant .. ':' .. priority)
    if tag then return tag end
  end
end

for _ = 1, 200 do
  local head = redis.call('ZRANGE', ready, 0, 0, 'WITHSCORES')
  local tenant = head[1]
  if not tenant then
    redis.call('ZADD', 'hg1:sleepers:' .. pool, int(NOW + ARGV[4]), inc)
    return {}
  end
  local tag = next_tag(tenant)
  local payload = tag and redis.call('HGET', 'hg1:msg', tag)
  if not tag then
    redis.call('ZREM', ready, tenant)
  elseif payload then
    local m = read_meta(tag)
    m.deliveries = tostring(m.deliveries + 1)
    write_meta(tag, m)
    redis.call('HSET', 'hg1:unacked:' .. inc, tag, m.deliveries)
    local finish = int(head[2] + m.cost)
    redis.call('SET', 'hg1:clock:' .. pool, head[2])
    redis.call('HSET', vft, tenant, finish)
    redis.call('ZADD', ready, finish, tenant)
    ring(pool)
    return {tag, payload, m.deliveries}
  end
end
ring(pool)
return {}
