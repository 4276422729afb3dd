-- Which of these nodes should have a message or a live lease and have neither? An execution whose lease is not live is closed, its money goes
-- back, and its node is due again; also where its message waits in line: who knows when that begins (a paused tenant, no worker).
-- ARGV: S, run, gen, age_ms, nodes.. (at most 200). Returns the nodes to publish.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
if not run or run.status ~= 'running' then return {} end
local publish = {}
for i = 5, #ARGV do
  local node = ARGV[i]
  local state = state_of(node)
  local lease = state == 'running' and read_lease(node)
  if lease and not lease.live then
    close_lost(run, node, lease)
    make_due(node)
    due_now[#due_now + 1] = node
    if not outstanding(task_id(node)) then publish[#publish + 1] = node end
  elseif state == 'due' and not outstanding(task_id(node))
    and tonumber(redis.call('ZSCORE', 'hg1:due:' .. RG, node)) <= NOW - ARGV[4] then
    publish[#publish + 1] = node
  end
end
announce_due(run.tenant)
return publish
