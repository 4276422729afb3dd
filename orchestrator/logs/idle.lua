-- Logs whose attempts are over and that nobody put away: a process was killed, or the store did not answer. Whoever is told of one has
-- idle_ms for it before another is. Those of attempts that run are kept for longer.
-- ARGV: S, idle_ms, most, kept_ms. Returns {run.gen:node:attempt ..}.
--
-- hg1:logs           zset run.gen:node:attempt -> last sign of life, ms
-- hg1:lease:{rg}     node -> attempt|inc|tag|delivery|since
-- hg1:incarnations   zset live incarnation -> last heartbeat
-- @include tenancy/kernel
local found = {}
for _, name in ipairs(redis.call('ZRANGE', 'hg1:logs', '-inf', NOW - ARGV[2], 'BYSCORE', 'LIMIT', 0, ARGV[3])) do
  local rg, node, attempt = name:match('^([^:]+):([^:]+):(%d+)$')
  if redis.call('EXISTS', 'hg1:log:' .. name) == 0 then
    redis.call('ZREM', 'hg1:logs', name)
  else
    redis.call('ZADD', 'hg1:logs', NOW, name)
    local lease = redis.call('HGET', 'hg1:lease:' .. rg, node)
    local claimed, inc = (lease or ''):match('^(%d+)|([^|]+)|')
    if claimed == attempt and redis.call('ZSCORE', 'hg1:incarnations', inc) then
      redis.call('PEXPIRE', 'hg1:log:' .. name, ARGV[4])
    else
      found[#found + 1] = name
    end
  end
end
return found
