-- Set how many nodes of a run may be held at once. ARGV: S, run, max_parallel ('' = no cap). Returns 1.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if ARGV[3] == '' then
  redis.call('HDEL', 'hg1:caps', ARGV[2])
else
  redis.call('HSET', 'hg1:caps', ARGV[2], ARGV[3])
end
for _ = 1, math.min(200, tonumber(ARGV[3]) or 200) do unpark('place:' .. ARGV[2]) end
return 1
