-- Set what nodes that have not begun run as. ARGV: S, run, gen, decision, then per node (at most 200) id, variant ('' = as it is).
-- Nodes that run or ended are left alone, and all are when the decision is completed. Absolute: repeating changes nothing.
-- Returns how many were changed. Event node.judged: nodes {id: variant, or ''}, decision.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local decision = ARGV[4]
local run = get_run()
if not run or (run.status ~= 'running' and run.status ~= 'loading') or not stands(run, decision) then return 0 end
local verdicts, judged, changed = 'hg1:verdict:' .. RG, {}, 0
for i = 5, #ARGV, 2 do
  local node, choice = ARGV[i], ARGV[i + 1]
  local state = state_of(node)
  if (state == 'pending' or state == 'due') and (redis.call('HGET', verdicts, node) or '') ~= choice then
    if choice == '' then redis.call('HDEL', verdicts, node) else redis.call('HSET', verdicts, node, choice) end
    judged[node], changed = choice, changed + 1
  end
end
if changed > 0 then
  emit({t = 'node.judged', tenant = run.tenant, run = RUN, gen = tonumber(GEN), nodes = judged, decision = decision})
  progress()
end
return changed
