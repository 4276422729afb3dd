-- Somebody lets a run go on that a decision holds: that is on record, and its own limit is raised. Nothing holds it from here on but its
-- pause, which `resume` ends after this.
-- ARGV: S, run, gen, budget in micros ('' = as it is; it is never lowered, and a run without one gets none), reason, by.
-- Returns 1; 0 where nothing of it waits for an approval. Event run.approved.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
if not run or run.status ~= 'running' or redis.call('HGET', 'hg1:run:' .. RG, 'waits') ~= 'hold' then return 0 end
if redis.call('SISMEMBER', 'hg1:paused', 'run:' .. RG) == 0 then return 0 end
redis.call('HDEL', 'hg1:run:' .. RG, 'waits')
local budget = raise_budget(RG, ARGV[4])
emit({t = 'run.approved', tenant = run.tenant, run = RUN, gen = tonumber(GEN), budget = budget, reason = ARGV[5], by = ARGV[6]})
return 1
