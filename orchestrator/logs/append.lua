-- What an attempt has said since the last time, for readers while it runs, and should its process be killed.
-- ARGV: S, run, gen, node, attempt, bytes_max, kept_ms, then pairs: end (bytes of the log up to the end of the piece), lines (JSON, one each).
-- Repeating it changes nothing. Returns the end of what is there.
--
-- hg1:log:{run}.{gen}:{node}:{attempt}   stream; id end-0, field l = lines; about the last bytes_max of it
-- hg1:logs                               zset {run}.{gen}:{node}:{attempt} -> last sign of life, ms
-- @include tenancy/kernel
local name = ARGV[2] .. '.' .. ARGV[3] .. ':' .. ARGV[4] .. ':' .. ARGV[5]
local key = 'hg1:log:' .. name
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
local stands = last and tonumber(last[1]:match('^%d+')) or 0
for i = 8, #ARGV, 2 do
  local at = tonumber(ARGV[i])
  if at > stands then
    redis.call('XADD', key, int(at) .. '-0', 'l', ARGV[i + 1])
    stands = at
  end
end
if stands > 0 then
  redis.call('XTRIM', key, 'MINID', int(math.max(0, stands - ARGV[6] + 1)))
  redis.call('PEXPIRE', key, ARGV[7])
  redis.call('ZADD', 'hg1:logs', NOW, name)
end
return int(stands)
