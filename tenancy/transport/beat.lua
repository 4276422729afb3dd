-- Refresh an incarnation's heartbeat, and charge its tenants for what runs longer than expected.
-- ARGV: S, inc. Returns 1, or 0 when it is not live: take a new incarnation.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if not live(ARGV[2]) then return 0 end
redis.call('ZADD', 'hg1:incarnations', int(NOW), ARGV[2])
charge_overdue(ARGV[2])
return 1
