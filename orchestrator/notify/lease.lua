-- Hold or give up the lease of delivering: one process delivers at a time.
-- hg1:notifier  string: the owner, with a time to live
-- ARGV: S, owner, ttl_ms (0 = give up). Returns 1 when the owner holds it, 0 when another does or it was given up.
-- @include tenancy/kernel
local holder = redis.call('GET', 'hg1:notifier')
if holder and holder ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then
  redis.call('DEL', 'hg1:notifier')
  return 0
end
redis.call('SET', 'hg1:notifier', ARGV[2], 'PX', ARGV[3])
return 1
