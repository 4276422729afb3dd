-- A tenant's policy numbers or status changed: from here on nothing of it is popped, or the room that it may have now is used.
-- ARGV: S, tenant. Returns 1.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if is_blocked(ARGV[2], rule_of(ARGV[2])) then block(ARGV[2]) else unblock(ARGV[2]) end
return 1
