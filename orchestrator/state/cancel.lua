-- Set the fence of a run: nothing of it begins from here on. Its nodes get their outcomes by `revoke`. A run that waits leaves the line.
-- One that is on record only, because nobody came to admit it yet, never is: its nodes are loaded to get their outcomes.
-- ARGV: S, run, gen, reason, by, then for a run that may be on record only: tenant, what `admit` would be asked (JSON).
-- Returns 1, or 0 when the run is unknown or has ended.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
-- @include orchestrator/state/line
local run = get_run()
if not run and ARGV[6] then
  write_run(RG, ARGV[6], cjson.decode(ARGV[7]), 'known', 0)
  redis.call('ZADD', 'hg1:runs', int(NOW), RG)
  run = get_run()
end
if not run or run.status == 'ended' then return 0 end
if run.status ~= 'cancelling' then
  if run.status == 'held' then
    step_out(RG, run.tenant)
    redis.call('ZADD', 'hg1:runs', int(NOW), RG)
  end
  unload(RG)
  redis.call('HSET', 'hg1:run:' .. RG, 'status', 'cancelling', 'reason', ARGV[4])
  emit({t = 'run.cancelling', tenant = run.tenant, run = RUN, gen = tonumber(GEN), reason = ARGV[4], by = ARGV[5]})
  run.status = 'cancelling'
  maybe_end(run)
end
return 1
