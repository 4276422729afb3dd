-- End a pause. What was parked meanwhile returns in its order before anything of the scope is popped.
-- ARGV: S, scope, by, reason. Returns 1 when there is more to return: call again; 0 when the pause is over or there was none.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local scope = ARGV[2]
if redis.call('SISMEMBER', 'hg1:paused', scope) == 0 then return 0 end
local run, tenant = scope:match('^run:(.*)$'), scope:match('^tenant:(.*)$')
if run then
  local list = 'hg1:parked:pause:' .. run
  for _ = 1, 200 do
    local tag = redis.call('RPOP', list)
    if not tag then break end
    local m = read_meta(tag)
    if m and m.w == 'pause:' .. run then
      count_by('hg1:parked:by', m.t, -1)
      enqueue(tag, m, true)
    end
  end
  if redis.call('LLEN', list) > 0 then return 1 end
end
redis.call('SREM', 'hg1:paused', scope)
emit({t = 'scope.resumed', scope = scope, by = ARGV[3], reason = ARGV[4]})
if tenant then unblock(tenant) end
for _, pool in ipairs(redis.call('SMEMBERS', 'hg1:pools')) do ring(pool) end
return 0
