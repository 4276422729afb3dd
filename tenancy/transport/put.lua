-- Store a message and put it in line.
-- ARGV: S, payload, tenant, priority, pool, cost_ms, once-id or '', replace 0|1, delay_ms.
-- Returns the tag, or '' when the once-id names a message that still exists and replace is 0.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local once = ARGV[7]
if once ~= '' and ARGV[8] == '0' and outstanding(once) then return '' end
local tag = 'm' .. redis.call('HINCRBY', 'hg1:epoch', 'tags', 1)
local m = {tenant = ARGV[3], priority = ARGV[4], pool = ARGV[5], cost = ARGV[6], deliveries = '0', once = once}
redis.call('HSET', 'hg1:msg', tag, ARGV[2])
write_meta(tag, m)
if once ~= '' then redis.call('HSET', 'hg1:once', once, tag) end
if tonumber(ARGV[9]) > 0 then
  redis.call('ZADD', 'hg1:delayed', int(NOW + ARGV[9]), tag)
else
  enqueue(tag, m, false)
end
return tag
