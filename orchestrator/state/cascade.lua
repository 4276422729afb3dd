-- Go on writing the fate of descendants. ARGV: S, run, gen, limit (<= 200).
-- Returns {unwritten, due nodes..}: 1: there are more; 2: the run was stopped by a failure, and what has not begun is to be revoked; else 0.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
if not run or run.status == 'ended' then return {0} end
local reply = {cascade(run, tonumber(ARGV[4]))}
announce_due(run.tenant)
maybe_end(run)
for _, node in ipairs(due_now) do reply[#reply + 1] = node end
return reply
