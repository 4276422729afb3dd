-- Settle an execution once. ARGV: S, run, gen, node, attempt, cats (`llm=30000,..` or ''), by, price version ('' = none), then backlog per
-- slot, percent to park at, percent to open below, lines (usage by unit, JSON; '' = on record or not known). Returns {settled, same, conflict, waste or
-- unknown, 0|1, 0|1}; the first 1: a run that waits may start now, call let_in; the second: a level was entered, call the agent.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
-- @include orchestrator/state/pressure
local run = get_run()
if not run then return {'unknown', 0, 0} end
local had_ended = run.status == 'ended'
local answer = settle(RUN, GEN, ARGV[4], ARGV[5], ARGV[6], ARGV[7], run.left > 0, ARGV[8], ARGV[12])
if answer == 'settled' then need_again(ARGV[4], ARGV[5]) end
maybe_end(run)
return {answer, somebody_may_start(run.status == 'ended' and not had_ended, read_rules(9)), was_level_entered and 1 or 0}
