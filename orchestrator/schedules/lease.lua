-- Hold, renew or give up a lease of schedules: one process decides about times, one at a time runs a backfill.
-- hg1:lease:{name}  string: the owner, with a time to live
-- ARGV: S, name, owner, ttl_ms (0 = give up). Returns 1 when the owner holds it, 0 when another does or it was given up.
-- @include tenancy/kernel
local key = 'hg1:lease:' .. ARGV[2]
local holder = redis.call('GET', key)
if holder and holder ~= ARGV[3] then return 0 end
if ARGV[4] == '0' then
  redis.call('DEL', key)
  return 0
end
redis.call('SET', key, ARGV[3], 'PX', ARGV[4])
return 1
