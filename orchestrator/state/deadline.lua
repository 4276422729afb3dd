-- Raise the time limit of a run's nodes, or of one: executions that are popped from here on have it. It is never lowered.
-- ARGV: S, run, gen, seconds, node ('' = every node), reason, by. Returns the seconds it had been raised to before ('0' = never), '' when the
-- run is unknown or has ended, `ended` when the node has.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local seconds, node = tonumber(ARGV[4]), ARGV[5]
local run = get_run()
if not run or run.status == 'ended' then return '' end
local state = node ~= '' and state_of(node)
if state and not UNFINISHED[state] then return 'ended' end
local field = node == '' and '*' or task_id(node)
local former = tonumber(redis.call('HGET', 'hg1:timeout:' .. RG, field) or 0)
seconds = math.max(seconds, former)
redis.call('HSET', 'hg1:timeout:' .. RG, field, int(seconds))
emit({t = 'deadline.raised', tenant = run.tenant, run = RUN, gen = tonumber(GEN), node = node ~= '' and node or nil, timeout_s = seconds,
  former = former, reason = ARGV[6], by = ARGV[7]})
return int(former)
