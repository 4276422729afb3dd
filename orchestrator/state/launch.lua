-- Make roots due, and with the last piece of them start the run (once): until then its gate lets nobody in, so a producer that dies
-- between two pieces leaves a run that is still loading. ARGV: S, run, gen, degraded 0|1 (for the event: something was given up), last 0|1, roots.. (at most 200 a call).
-- Returns the roots that are due: to be published once the run has started.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
-- @include orchestrator/state/pressure
local run = get_run()
if not run or run.status == 'ended' or run.status == 'cancelling' or run.status == 'held' then return {} end
if run.status == 'loading' and ARGV[5] == '1' then
  redis.call('HSET', 'hg1:run:' .. RG, 'status', 'running')
  emit({t = 'run.started', tenant = run.tenant, run = RUN, gen = tonumber(GEN), degraded = ARGV[4] == '1'})
  run.status = 'running'
  unload(RG)
end
local due = {}
for i = 6, #ARGV do
  local node = ARGV[i]
  if state_of(node) == 'pending' and tonumber(redis.call('HGET', 'hg1:wait:' .. RG, node)) == 0 then
    make_due(node)
    due_now[#due_now + 1] = node
  end
  if state_of(node) == 'due' then due[#due + 1] = node end
end
announce_due(run.tenant)
progress()
maybe_end(run)
return due
