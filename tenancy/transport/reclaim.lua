-- Declare silent incarnations dead and give their messages back, first in line.
-- ARGV: S, ttl_ms (silence that means death), limit (tags moved in one call, <= 200).
-- Returns {moved, more 0|1}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- Later than now is a time that a clock had before it was set back: who died since would be taken for live until it comes again, and
-- what waits for a token would wait as long.
for _, inc in ipairs(redis.call('ZRANGEBYSCORE', 'hg1:incarnations', '(' .. int(NOW), '+inf', 'LIMIT', 0, 20)) do
  redis.call('ZADD', 'hg1:incarnations', int(NOW), inc)
end
for _, list in ipairs(redis.call('ZRANGEBYSCORE', 'hg1:recheck', int(NOW + RECHECK_MAX_MS), '+inf', 'LIMIT', 0, 20)) do
  redis.call('ZADD', 'hg1:recheck', int(NOW), list)
end
for _, inc in ipairs(redis.call('ZRANGEBYSCORE', 'hg1:incarnations', '-inf', int(NOW - ARGV[2]), 'LIMIT', 0, 20)) do
  bury(inc, 'worker.dead')
end
return {give_back(tonumber(ARGV[3]))}
