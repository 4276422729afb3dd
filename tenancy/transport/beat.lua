-- Refresh an incarnation's heartbeat; note what its tenants received, and charge them for what runs longer than expected.
-- ARGV: S, inc. Returns 1, or 0 when it is not live: take a new incarnation.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if not live(ARGV[2]) then return 0 end
redis.call('ZADD', 'hg1:incarnations', int(NOW), ARGV[2])
account_for_held(ARGV[2])
return 1
