-- Set the fence of the platform or of a tenant: nothing begins from here on of runs that were admitted up to now. The runs themselves are
-- cancelled one by one after it. ARGV: S, scope (platform, tenant:{t}), reason, by. Returns the time of the fence, ms.
--
-- hg1:fence   hash scope -> time of its last fence, ms
-- @include tenancy/kernel
redis.call('HSET', 'hg1:fence', ARGV[2], int(NOW))
emit({t = 'scope.cancelled', scope = ARGV[2], reason = ARGV[3], by = ARGV[4]})
return int(NOW)
