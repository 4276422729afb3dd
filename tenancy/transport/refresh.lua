-- A tenant's policy numbers changed: room that it may have now is used. ARGV: S, tenant. Returns 1.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
for _, pool in ipairs(redis.call('SMEMBERS', 'hg1:pools')) do unblock(pool, ARGV[2]) end
return 1
