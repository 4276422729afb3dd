-- Settle a message that this incarnation holds. ARGV: S, inc, tag, delivery. Returns 1, or 0 when it does not hold
-- this delivery: a late word about an earlier one says nothing about the next.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
return settle_message(ARGV[2], ARGV[3], ARGV[4])
