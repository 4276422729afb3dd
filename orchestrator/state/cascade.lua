-- Go on writing the fate of descendants. ARGV: S, run, gen, limit (<= 200). Returns 1 when there are more, else 0.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
if not run or run.status == 'ended' then return 0 end
local more = cascade(run, tonumber(ARGV[4]))
maybe_end(run)
return more
