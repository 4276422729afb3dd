-- Give nodes that have not begun an outcome, and forget their messages. ARGV: S, run, gen, outcome, reason, decision ('' = none),
-- nodes.. (at most 200).
-- Nodes whose worker is gone count as not begun. The outcome stands in the way of children; only joins that tolerate it become due.
-- Returns {number revoked, unwritten 0|1|2 (as `cascade`), due nodes..}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
local decision = ARGV[6]
if not run or run.status == 'ended' or not stands(run, decision) then return {0, 0} end
local revoked = 0
for i = 7, #ARGV do
  local node = ARGV[i]
  local state = state_of(node)
  local lease = state == 'running' and read_lease(node)
  if lease and not lease.live then
    close_lost(run, node, lease)
    state = 'due'
  end
  if state == 'pending' or state == 'due' then
    local ctl = ctl_of(node)
    drop_once(task_id(node))
    set_outcome(run, node, ARGV[4], {reason = ARGV[5], decision = decision ~= '' and decision or nil}, ctl)
    propagate(run, node, 'bad', ctl)
    revoked = revoked + 1
  end
end
local reply = {revoked, cascade(run, 200)}
announce_due(run.tenant)
maybe_end(run)
for _, child in ipairs(due_now) do
  if state_of(child) == 'due' then reply[#reply + 1] = child end
end
return reply
