-- Declare silent incarnations dead and give their messages back, first in line.
-- ARGV: S, ttl_ms (silence that means death), limit (tags moved in one call, <= 200).
-- Returns {moved, more 0|1}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
for _, inc in ipairs(redis.call('ZRANGEBYSCORE', 'hg1:incarnations', '-inf', int(NOW - ARGV[2]), 'LIMIT', 0, 20)) do
  bury(inc, 'worker.dead')
end
return {give_back(tonumber(ARGV[3]))}
