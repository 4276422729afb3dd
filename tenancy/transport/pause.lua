-- Pause: nothing of the scope is popped from here on. ARGV: S, scope (platform, tenant:{t}, run:{r}), by, reason.
-- Returns 1, or 0 when it was paused already.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if redis.call('SADD', 'hg1:paused', ARGV[2]) == 0 then return 0 end
local tenant = ARGV[2]:match('^tenant:(.*)$')
if tenant then block(tenant) end
emit({t = 'scope.paused', scope = ARGV[2], by = ARGV[3], reason = ARGV[4]})
return 1
