-- Give up optional nodes that have not begun; joins let them pass. ARGV: S, run, gen, reason, decision ('' = none), nodes.. (at most 200).
-- Returns {number skipped, due nodes..}. Required nodes and those that run or ended are left alone; so is all if the decision is completed.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
local decision = ARGV[5]
if not run or run.status == 'ended' or run.status == 'cancelling' or not stands(run, decision) then return {0} end
local skipped = 0
for i = 6, #ARGV do
  local node = ARGV[i]
  local state = state_of(node)
  if state == 'pending' or state == 'due' then
    local ctl = ctl_of(node)
    if not ctl.required then
      drop_once(task_id(node))
      set_outcome(run, node, 'skipped', {reason = ARGV[4], decision = decision ~= '' and decision or nil}, ctl)
      propagate(run, node, 'passed', ctl)
      skipped = skipped + 1
    end
  end
end
cascade(run, 200)
announce_due(run.tenant)
progress()
maybe_end(run)
local reply = {skipped}
for _, child in ipairs(due_now) do
  if state_of(child) == 'due' then reply[#reply + 1] = child end
end
return reply
