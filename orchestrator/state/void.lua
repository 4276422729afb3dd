-- Give an execution's reservation back. ARGV: S, run, gen, node, attempt, by.
-- Returns void, same, conflict (it was settled) or unknown.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
if not run then return 'unknown' end
local answer = void(RUN, GEN, ARGV[4], ARGV[5], ARGV[6], run.left > 0)
if answer == 'void' then need_again(ARGV[4], ARGV[5]) end
maybe_end(run)
return answer
