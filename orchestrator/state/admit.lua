-- Admission of a run: floor and place must fit; the estimate, as far as it fits, is held. Idempotent by run.
-- ARGV: S, run, gen, tenant, JSON {graph, total, estimate, floor, budget ('' = none), priority}; amounts are decimal strings.
-- Returns {'admitted', hold} or {'refused', reason, limit, current}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
if get_run() then return {'admitted', redis.call('HGET', 'hg1:run:' .. RG, 'hold')} end
local tenant, want = ARGV[4], cjson.decode(ARGV[5])
local hold, reason, limit, current = hold_run(RG, tenant, micros(want.floor), micros(want.estimate), want.budget)
if not hold then
  emit({t = 'run.refused', tenant = tenant, run = RUN, gen = tonumber(GEN), reason = reason, limit = limit, current = current})
  return {'refused', reason, limit, current}
end
redis.call('HSET', 'hg1:run:' .. RG, 'tenant', tenant, 'graph', want.graph, 'status', 'loading', 'total', want.total,
  'left', want.total, 'estimate', want.estimate, 'floor', want.floor, 'hold', int(hold), 'created', int(NOW), 'priority', want.priority)
redis.call('ZADD', 'hg1:runs', int(NOW), RG)
emit({t = 'run.admitted', tenant = tenant, run = RUN, gen = tonumber(GEN), graph = want.graph, total = tonumber(want.total),
      estimate = want.estimate, floor = want.floor, hold = int(hold), budget = want.budget})
return {'admitted', int(hold)}
