-- Take over what an earlier generation of the run has done: nodes that succeeded there have succeeded here. After the last `load`, before
-- `launch`, children before their parents, so that nothing is due for a moment that is adopted too. Repeating changes nothing.
-- ARGV: S, run, gen, then per node (at most 200) id, generation that ran it, result, verdict. A node that the run does not have is kept for
-- when another one becomes it; of those, generation 0 says that it becomes a graph without running, and the result is that graph.
-- Returns how many were adopted.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
if not run or (run.status ~= 'loading' and run.status ~= 'cancelling') then return 0 end
local generations, adopted = {}, {}
for i = 4, #ARGV, 4 do
  local node, generation, result, verdict = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local state = state_of(node)
  if not state then
    redis.call('HSET', 'hg1:adopts:' .. RG, node, generation .. '|' .. verdict .. '|' .. result)
  elseif state == 'pending' or state == 'due' then
    local ctl = ctl_of(node)
    drop_once(task_id(node))
    redis.call('HSET', 'hg1:result:' .. RG, node, result)
    if verdict ~= '' then redis.call('HSET', 'hg1:verdict:' .. RG, node, verdict) else redis.call('HDEL', 'hg1:verdict:' .. RG, node) end
    write_outcome(run, node, 'succeeded', ctl)
    generations[node] = tonumber(generation)
    adopted[#adopted + 1] = {node, ctl}
  end
end
if #adopted == 0 then return 0 end
emit({t = 'node.adopted', tenant = run.tenant, run = RUN, gen = tonumber(GEN), nodes = generations})
for _, pair in ipairs(adopted) do propagate(run, pair[1], 'succeeded', pair[2]) end
cascade(run, 200)
announce_due(run.tenant)
maybe_end(run)
return #adopted
