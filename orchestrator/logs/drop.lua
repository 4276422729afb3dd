-- A log was put away up to `end`: it goes, unless more was said since.
-- ARGV: S, run, gen, node, attempt, end. Returns 1 where nothing of it is left, else 0.
--
-- hg1:log:{run}.{gen}:{node}:{attempt}, hg1:logs   see append
-- @include tenancy/kernel
local name = ARGV[2] .. '.' .. ARGV[3] .. ':' .. ARGV[4] .. ':' .. ARGV[5]
local last = redis.call('XREVRANGE', 'hg1:log:' .. name, '+', '-', 'COUNT', 1)[1]
if last and tonumber(last[1]:match('^%d+')) > tonumber(ARGV[6]) then return 0 end
redis.call('UNLINK', 'hg1:log:' .. name)
redis.call('ZREM', 'hg1:logs', name)
return 1
