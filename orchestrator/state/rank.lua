-- Change the priority of a run: all that is put in line of it from here on has this one. What is in line already is moved by `reprioritise`.
-- ARGV: S, run, gen, priority, reason, by. Returns the former priority, '' when the run is unknown or has ended.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
if not run or run.status == 'ended' then return '' end
local former = redis.call('HGET', 'hg1:ranks', RG) or redis.call('HGET', 'hg1:run:' .. RG, 'priority')
redis.call('HSET', 'hg1:ranks', RG, ARGV[4])
emit({t = 'run.reprioritised', tenant = run.tenant, run = RUN, gen = tonumber(GEN), priority = tonumber(ARGV[4]), former = tonumber(former),
  reason = ARGV[5], by = ARGV[6]})
return former
