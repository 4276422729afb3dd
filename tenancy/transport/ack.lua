-- Settle a message that this incarnation holds. ARGV: S, inc, tag, delivery. Returns 1, or 0 when it does not hold
-- this delivery: a late word about an earlier one says nothing about the next.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if not holds(ARGV[2], ARGV[3], ARGV[4]) then return 0 end
local m = unhold(ARGV[2], ARGV[3])
if m then drop(ARGV[3], m) end
return 1
