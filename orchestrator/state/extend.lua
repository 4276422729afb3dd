-- A charge of a running execution, before it counts: its reservation is raised to what is used by then, and that is written down.
-- ARGV: S, run, gen, node, attempt, inc, cats (usage so far, `llm=30000,..`): what was said before changes nothing when it is said again.
-- Returns {ok}; {closed}: its lease is over, what it goes on to use is waste; {refused, reason, limit, current}: the money does not cover it, and
-- nothing has changed; {unknown}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local node, attempt, inc = ARGV[4], ARGV[5], ARGV[6]
local lease = read_lease(node)
if not (lease and lease.live and lease.attempt == attempt and lease.inc == inc) then
  return {read_res(RG, node, attempt) and 'closed' or 'unknown'}
end
local answer, refusal = extend(RG, node, attempt, ARGV[7])
if answer == 'refused' then return {answer, refusal.reason, refusal.limit, refusal.current} end
return {answer}
