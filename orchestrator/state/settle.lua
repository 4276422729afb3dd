-- Settle an execution once. ARGV: S, run, gen, node, attempt, cats (`llm=30000,..` or ''), by.
-- Returns settled, same, conflict, waste or unknown.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
if not run then return 'unknown' end
local answer = settle(RUN, GEN, ARGV[4], ARGV[5], ARGV[6], ARGV[7], run.left > 0)
maybe_end(run)
return answer
