-- Hand a message back, first in line, or delayed. ARGV: S, inc, tag, delivery, delay_ms.
-- Returns 1, or 0 when inc does not hold this delivery.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if not holds(ARGV[2], ARGV[3], ARGV[4]) then return 0 end
release(ARGV[2], ARGV[3], tonumber(ARGV[5]))
return 1
