-- Settle an execution once. ARGV: S, run, gen, node, attempt, cats (`llm=30000,..` or ''), by, price version ('' = none), then backlog per
-- slot, percent to park at, percent to open below, lines (usage by unit, JSON; '' = on record or not known). Returns {settled, same, conflict, waste or
-- unknown, 0|1, 0|1}; the first 1: a run that waits may start now, call let_in; the second: a level was entered, call the agent.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
-- @include orchestrator/state/charge
return charge(get_run(), ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[12], read_rules(9))
