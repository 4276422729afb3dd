-- Admission of a run: floor and place must fit, its pools have room, somebody serves its tasks, and nobody of its tenant waits; the
-- estimate, as far as it fits, is held. Else it waits in its tenant's line, or is refused. Idempotent by run.
-- ARGV: S, run, gen, tenant, JSON {graph, total, estimate, floor, budget ('' = none), full (1: nothing less than the
--       estimate), priority, max_parallel ('' = no cap), pools, roots {pool: n}, tasks}, then backlog per slot, percent to park at, percent to open below. Amounts are decimal strings; the
--       pool '' is the tenant's own.
--       until (ms, 0 = none): an unknown run is admitted before it only. Later it may have ended and been forgotten.
-- Returns {'stale'} then; {'admitted', hold}; {'held', why, 0|1} (1: the line might go on, let_in should be called);
-- or {'refused', reason, limit, current, retry_after_ms or ''}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
-- @include orchestrator/state/line
local known = redis.call('HMGET', 'hg1:run:' .. RG, 'status', 'hold', 'why')
if known[1] == 'held' then return {'held', known[3], 0} end
if known[1] then return {'admitted', known[2]} end
if tonumber(ARGV[9] or 0) > 0 and NOW > tonumber(ARGV[9]) then return {'stale'} end
local tenant, want = ARGV[4], cjson.decode(ARGV[5])
local stop, short = hindrance(tenant, want, read_rules(6), false)
if not stop then return {'admitted', int(take_in(RG, tenant, want, short))} end
if stop.refuse then
  refuse_run(RG, tenant, stop)
  return {'refused', stop.why, stop.limit, stop.current, stop.retry}
end
line_up(RG, tenant, ARGV[5], want, stop)
-- The head waits for what is not in the way of this run: perhaps it could go on by now.
local nudge = 0
if stop.behind and stop.why ~= 'runs' and stop.why ~= 'budget' and NOW - (redis.call('GET', 'hg1:nudge') or 0) >= NUDGE_MS then
  redis.call('SET', 'hg1:nudge', int(NOW))
  nudge = 1
end
return {'held', stop.why, nudge}
