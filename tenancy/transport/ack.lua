-- Settle a message that this incarnation holds. ARGV: S, inc, tag. Returns 1, or 0 when it holds no such tag.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if not live(ARGV[2]) or redis.call('HDEL', 'hg1:unacked:' .. ARGV[2], ARGV[3]) == 0 then return 0 end
drop(ARGV[3])
return 1
