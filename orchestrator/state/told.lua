-- Is an execution told to stop? ARGV: S, run, gen, node, attempt, inc. Returns why, '' where it is to go on.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local node = ARGV[4]
local run = get_run()
local lease = run and read_lease(node)
if not (lease and lease.live and lease.attempt == ARGV[5] and lease.inc == ARGV[6]) then return 'another attempt has taken its place' end
if run.status == 'cancelling' then return redis.call('HGET', 'hg1:run:' .. RG, 'reason') or 'the run was cancelled' end
if run.stopped then return run.stopped end
if is_fenced(run.tenant) then return 'everything of its tenant was cancelled' end
return redis.call('HGET', 'hg1:stop:' .. RG, node) or ''
