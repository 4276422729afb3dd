-- Cancel nodes of a run: those that have not begun get the outcome and leave the broker, those that run are told, and get it whatever they
-- return. Nothing of them begins from here on. ARGV: S, run, gen, reason, by, nodes.. (at most 200, children before their parents).
-- Returns {number cancelled, number told, unwritten 0|1|2 (as `cascade`), due nodes..}; nodes that have ended are left alone, and one that is
-- named twice counts once.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local reason, by = ARGV[4], ARGV[5]
local run = get_run()
if not run or run.status == 'ended' then return {0, 0, 0} end
local cancel, named, known, told = {}, {}, {}, 0
for i = 6, #ARGV do
  local node = ARGV[i]
  local state = not known[node] and state_of(node)
  known[node] = true
  if state and UNFINISHED[state] then
    local lease = state == 'running' and read_lease(node)
    redis.call('HSET', 'hg1:stop:' .. RG, node, reason)
    named[#named + 1] = node
    if lease and lease.live then told = told + 1 else cancel[#cancel + 1] = {node, lease} end
  end
end
if #named == 0 then return {0, 0, 0} end
emit({t = 'node.cancelling', tenant = run.tenant, run = RUN, gen = tonumber(GEN), nodes = named, reason = reason, by = by})
for _, pair in ipairs(cancel) do
  local node, lease = pair[1], pair[2]
  local ctl = ctl_of(node)
  if lease then close_lost(run, node, lease) end
  drop_once(task_id(node))
  set_outcome(run, node, 'cancelled', {reason = reason}, ctl)
  propagate(run, node, 'bad', ctl)
end
local reply = {#cancel, told, cascade(run, 200)}
announce_due(run.tenant)
progress()
maybe_end(run)
for _, child in ipairs(due_now) do
  if state_of(child) == 'due' then reply[#reply + 1] = child end
end
return reply
