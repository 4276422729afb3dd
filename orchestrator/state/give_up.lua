-- End an execution whose process was ended on purpose: it is charged what it had noted, and its node waits for the next one. Unlike the loss
-- of a worker that counts against nobody. ARGV: S, run, gen, node, attempt, inc, by.
-- Returns settled or void; gone where the execution has ended.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local node, attempt = ARGV[4], ARGV[5]
local run = get_run()
local lease = run and read_lease(node)
if not (lease and lease.attempt == attempt and lease.inc == ARGV[6]) then return 'gone' end
redis.call('HDEL', 'hg1:lease:' .. RG, node)
local cats = read_res(RG, node, attempt).cats
local answer
if cats ~= '' then answer = settle(RUN, GEN, node, attempt, cats, ARGV[7], true, '', '')
else answer = void(RUN, GEN, node, attempt, ARGV[7], true) end
count_needed(need_of(node, ctl_of(node)))
make_due(node)
due_now[#due_now + 1] = node
announce_due(run.tenant)
return answer
