-- Hand a message back, first in line, or delayed. ARGV: S, inc, tag, delay_ms. Returns 1, or 0 when inc holds no such tag.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if not live(ARGV[2]) or redis.call('HEXISTS', 'hg1:unacked:' .. ARGV[2], ARGV[3]) == 0 then return 0 end
release(ARGV[2], ARGV[3], tonumber(ARGV[4]))
return 1
