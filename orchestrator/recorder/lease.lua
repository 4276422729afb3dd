-- Hold, renew or give up the recorder's lease; whoever holds it records, the others stand by.
-- hg1:recorder  string: the owner, with a time to live
-- ARGV: S (not compared: a lease is needed before an epoch is open), owner, ttl_ms (0 = give up).
-- Returns 1 when the owner holds it, 0 when another does or it was given up.
local holder = redis.call('GET', 'hg1:recorder')
if holder and holder ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then
  redis.call('DEL', 'hg1:recorder')
  return 0
end
redis.call('SET', 'hg1:recorder', ARGV[2], 'PX', ARGV[3])
return 1
