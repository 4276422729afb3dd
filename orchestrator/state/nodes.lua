-- Nodes and runs: outcomes, joins, the end of a run. Suffix {rg} = {run}.{gen}.
--
-- hg1:run:{rg}      tenant graph status total left outcome estimate floor hold created degraded required_failed reason priority n:{outcome}
--                   on_failure ('stop'), stopped (why nothing more of it begins); terminated: the decision by which it ends; waits (hold, finish):
--                   what a decision paused it for
-- hg1:state:{rg}    node -> pending, due, running or its outcome        hg1:wait:{rg}     node -> parents that stand in its way
--                   of one that counts its parents: those that have not ended; node:ok successes, node:taken 1 when one was taken
--                   of one that grows: node:made rows that there are, node:bad 1 when its rule cannot be met any more
-- hg1:ctl:{rg}      node -> JSON {floor, expects?, amounts, required, attempts, next, joins?, least?, when?, map?}; joins: [[child, rule], ..],
--                   children that count their parents: all_succeeded, all_done, or the n of at_least(n); with a 1 behind it where the child
--                   became this node, and gathers. Of one that was expanded also rule, gathers (nodes that lead to it), of (all), source?
-- hg1:spec:{rg}     node -> JSON for the worker
-- hg1:attempt:{rg}  node -> claims; node:fails, node:lost, node:done    hg1:lease:{rg}    node -> attempt|inc|tag|delivery|since
-- hg1:due:{rg}      zset node -> since
-- hg1:cascade:{rg}  list of nodes whose fate is sealed: upstream_failed, or, with a ! before it, not taken
-- hg1:result:{rg}, hg1:fault:{rg}, hg1:verdict:{rg}, hg1:notbefore:{rg} node -> value
-- hg1:fragment:{rg} index -> JSON of a fragment; of:{node} -> index
-- hg1:stop:{rg}     node -> why it is cancelled, of those that a person cancelled
-- hg1:timeout:{rg}  task id, or * for all -> s to which the time limit was raised
-- hg1:decision:{rg} n (decisions so far), last (action and flags of the last one), open (the one that is being applied), plan (JSON of it),
--                   kept:{node} of those that run although the run is terminated
-- hg1:runs          zset rg -> last progress
-- hg1:fence         platform, tenant:{t} -> ms: what was admitted up to then does not begin
local RUN, GEN = ARGV[2], ARGV[3]
local RG = RUN .. '.' .. GEN
local UNFINISHED = {pending = true, due = true, running = true}
local due_now = {}

local function task_id(node)
  return RG .. '.' .. node
end

local function get_run()
  local row = redis.call('HMGET', 'hg1:run:' .. RG, 'tenant', 'status', 'left', 'on_failure', 'stopped', 'terminated')
  if not row[2] then return nil end
  return {tenant = row[1], status = row[2], left = tonumber(row[3]), stops = row[4] == 'stop', stopped = row[5], terminated = row[6]}
end

-- Whether a decision is still to be applied: one that was completed, by whoever came first, changes nothing any more.
local function stands(run, decision)
  return decision == '' or run.terminated == decision or redis.call('HGET', 'hg1:decision:' .. RG, 'open') == decision
end

-- Why nothing of a terminated run begins, but what its decision keeps, and what that became.
local function terminated(run, node)
  if not run.terminated then return nil end
  local above = node
  while above do
    if redis.call('HEXISTS', 'hg1:decision:' .. RG, 'kept:' .. above) == 1 then return nil end
    above = above:match('^(.*)%.[^.]+$')
    if above and redis.call('HEXISTS', 'hg1:wait:' .. RG, above .. ':made') == 0 then above = nil end
  end
  return 'terminated by cost: decision ' .. run.terminated
end

local function state_of(node)
  return redis.call('HGET', 'hg1:state:' .. RG, node)
end

local function ctl_of(node)
  return cjson.decode(redis.call('HGET', 'hg1:ctl:' .. RG, node))
end

local function node_event(kind, tenant, node, fields)
  fields.t, fields.tenant, fields.run, fields.gen, fields.node = kind, tenant, RUN, tonumber(GEN), node
  emit(fields)
end

local function read_lease(node)
  local row = redis.call('HGET', 'hg1:lease:' .. RG, node)
  if not row then return nil end
  local attempt, inc, tag, delivery, since = row:match('^(.-)|(.-)|(.-)|(.-)|(.*)$')
  return {attempt = attempt, inc = inc, tag = tag, delivery = delivery, since = since, live = holds(inc, tag, delivery)}
end

local function make_due(node, at)
  redis.call('HSET', 'hg1:state:' .. RG, node, 'due')
  redis.call('ZADD', 'hg1:due:' .. RG, int(at or NOW), node)
end

-- The events of nodes that became due in this call, at most 200 names in one; not of those that got their outcome since.
local function announce_due(tenant)
  local due = {}
  for _, node in ipairs(due_now) do
    if state_of(node) == 'due' then due[#due + 1] = node end
  end
  for first = 1, #due, 200 do
    local names = {}
    for i = first, math.min(first + 199, #due) do names[#names + 1] = due[i] end
    emit({t = 'node.due', tenant = tenant, run = RUN, gen = tonumber(GEN), nodes = names})
  end
end

-- What the run's purse needs for a node that waits: its floor, 0 for an optional one. Not while what its last attempt had set aside is
-- still to be settled: that comes back with the settlement, and until then it is there. `attempt`: its last one, false where it had none,
-- nil where the caller has not read that.
local function need_of(node, ctl, attempt)
  local floor = micros(ctl.floor or '0')
  if floor > 0 and attempt == nil then attempt = redis.call('HGET', 'hg1:attempt:' .. RG, node) end
  if floor > 0 and attempt and redis.call('SISMEMBER', 'hg1:open:' .. RG, node .. ':' .. attempt) == 1 then return 0 end
  return floor
end

-- A run that was cancelled while it waited has no purse.
local function count_needed(change)
  if change ~= 0 and redis.call('EXISTS', 'hg1:purse:' .. RG) == 1 then redis.call('HINCRBY', 'hg1:purse:' .. RG, 'needed', int(change)) end
end

-- An execution was closed: where it was the last one of a node that waits for its next attempt, the run needs the node's floor again.
local function need_again(node, attempt)
  if UNFINISHED[state_of(node)] and redis.call('HEXISTS', 'hg1:lease:' .. RG, node) == 0
    and redis.call('HGET', 'hg1:attempt:' .. RG, node) == attempt then count_needed(need_of(node, ctl_of(node))) end
end

-- The first required node that fails stops a run that is to be stopped by it: nothing of it begins from here on. What has not begun gets
-- its outcome by `revoke`.
local function stop_run(run, node, outcome)
  run.stopped = "stopped: the node '" .. node .. "' " .. (outcome == 'failed' and 'failed' or 'timed out')
  redis.call('HSET', 'hg1:run:' .. RG, 'stopped', run.stopped)
  emit({t = 'run.stopping', tenant = run.tenant, run = RUN, gen = tonumber(GEN), node = node, reason = run.stopped})
end

-- What an outcome changes in state; `adopt` says it of what an earlier generation did, everybody else by `set_outcome`.
-- not_taken: it was skipped because it is on a branch not taken, which says nothing against the run. What succeeds as a variant was given up.
local function write_outcome(run, node, outcome, ctl, not_taken)
  redis.call('HSET', 'hg1:state:' .. RG, node, outcome)
  if redis.call('HDEL', 'hg1:lease:' .. RG, node) == 0 then
    count_needed(-need_of(node, ctl))
    redis.call('ZREM', 'hg1:due:' .. RG, node)  -- with a lease it is running, and was taken from there when it began
  end
  if ctl.expects then count_needed(-micros(ctl.expects)) end  -- a map that was never expanded
  run.left = redis.call('HINCRBY', 'hg1:run:' .. RG, 'left', -1)
  redis.call('HINCRBY', 'hg1:run:' .. RG, 'n:' .. outcome, 1)
  if outcome ~= 'succeeded' and not not_taken then
    redis.call('HSET', 'hg1:run:' .. RG, ctl.required and 'required_failed' or 'degraded', 1)
  elseif outcome == 'succeeded' and redis.call('HEXISTS', 'hg1:verdict:' .. RG, node) == 1 then
    redis.call('HSET', 'hg1:run:' .. RG, 'degraded', 1)
  end
end

-- The one place where a node gets its outcome; its message, if any is still in line, is forgotten.
local function set_outcome(run, node, outcome, fields, ctl, not_taken)
  write_outcome(run, node, outcome, ctl, not_taken)
  fields.outcome = outcome
  node_event('node.ended', run.tenant, node, fields)
  if run.stops and not run.stopped and ctl.required and (outcome == 'failed' or outcome == 'timed_out') and run.status == 'running' then
    stop_run(run, node, outcome)
  end
end

-- Whether the condition of a node holds, and why not; nil while the node that it asks about has not ended.
local function condition(when)
  local text = redis.call('HGET', 'hg1:result:' .. RG, when.ref)
  if not text then
    if UNFINISHED[state_of(when.ref)] then return nil end
    return false, when.ref .. ' has no result'
  end
  local found = false
  for _, wanted in ipairs(when.texts) do found = found or wanted == text end
  if found == (when.unless or false) then return false, when.why end
  return true
end

local function became_due(node)
  make_due(node)
  due_now[#due_now + 1] = node
end

-- What a node that counts its parents is, by what is counted of them: not taken if none of them was, upstream_failed if its rule cannot be
-- met, else due if its condition holds.
local function decide(node, rule, wait, ok, taken)
  local least = tonumber(rule)
  if wait == 0 and not taken then
    redis.call('RPUSH', 'hg1:cascade:' .. RG, '!' .. node)
  elseif least and ok < least then
    if ok + wait < least and taken then redis.call('RPUSH', 'hg1:cascade:' .. RG, node) end
  elseif least or wait == 0 then
    local when = ctl_of(node).when
    local met = not when or condition(when)
    if met then became_due(node)
    elseif met == false then redis.call('RPUSH', 'hg1:cascade:' .. RG, '!' .. node) end
  end
end

-- A parent of a node that counts its parents has ended. What follows does not depend on the order in which they end.
-- grown: the parent is what the node was expanded to. Parents that it had before are not heard any more then.
local function arrive(node, rule, how, grown)
  local waits, least = 'hg1:wait:' .. RG, tonumber(rule)
  if not grown and redis.call('HEXISTS', waits, node .. ':made') == 1 then return end
  if how == 'bad' and rule == 'all_succeeded' then
    if grown then redis.call('HSET', waits, node .. ':bad', 1) end
    redis.call('RPUSH', 'hg1:cascade:' .. RG, node)
    return
  end
  local wait, ok = redis.call('HINCRBY', waits, node, -1), 0
  local taken = how ~= 'untaken'
  if taken then redis.call('HSET', waits, node .. ':taken', 1) else taken = redis.call('HEXISTS', waits, node .. ':taken') == 1 end
  if least then ok = redis.call('HINCRBY', waits, node .. ':ok', how == 'succeeded' and 1 or 0) end
  if state_of(node) == 'pending' then decide(node, rule, wait, ok, taken) end
end

-- Count down the children of a node that ended. how: succeeded; passed (it does not stand in the way: skipped, or optional and failed);
-- untaken; bad.
local function propagate(run, node, how, ctl)
  if run.status == 'cancelling' or run.stopped then return end
  for _, child in ipairs(ctl.next) do
    if how == 'bad' then
      redis.call('RPUSH', 'hg1:cascade:' .. RG, child)
    elseif redis.call('HINCRBY', 'hg1:wait:' .. RG, child, -1) == 0 and state_of(child) == 'pending' then
      became_due(child)
    end
  end
  for _, join in ipairs(ctl.joins or {}) do arrive(join[1], join[2], how, join[3]) end
end

-- What an outcome that is no verdict of a branch means for the children: the `how` of propagate.
local function how_of(outcome, ctl)
  if outcome == 'succeeded' then return outcome end
  local passes = outcome == 'skipped' or (not ctl.required and (outcome == 'failed' or outcome == 'timed_out'))
  return passes and 'passed' or 'bad'
end

local function seal(run, node, not_taken)
  local ctl, why = ctl_of(node), nil
  drop_once(task_id(node))
  if not_taken then
    why = 'none of the nodes before it was taken'
    if redis.call('HEXISTS', 'hg1:wait:' .. RG, node .. ':taken') == 1 then why = select(2, condition(ctl.when)) end
    set_outcome(run, node, 'skipped', {reason = 'not taken: ' .. why}, ctl, true)
    propagate(run, node, 'untaken', ctl)
  else
    why = 'a required node before it did not succeed'
    if ctl.least then why = 'fewer than ' .. ctl.least .. ' of the nodes before it can succeed' end
    set_outcome(run, node, 'upstream_failed', {reason = why}, ctl)
    propagate(run, node, 'bad', ctl)
  end
end

-- What is left to write of a run: 1: `cascade` has more to do; 2: the run was stopped, and what has not begun is to be revoked.
local function unwritten(run, is_cascade_over)
  if not is_cascade_over and redis.call('LLEN', 'hg1:cascade:' .. RG) > 0 then return 1 end
  return run.stopped and run.left > 0 and 2 or 0
end

-- Write the fate of descendants: at most `limit` nodes. Returns what is unwritten.
local function cascade(run, limit)
  for _ = 1, limit do
    local entry = redis.call('LPOP', 'hg1:cascade:' .. RG)
    if not entry then return unwritten(run, true) end
    local not_taken = entry:sub(1, 1) == '!'
    local node = not_taken and entry:sub(2) or entry
    if state_of(node) == 'pending' then seal(run, node, not_taken) end
  end
  return unwritten(run)
end

-- How long a run of the tenant took lately, from its admission to its end: says when a place is likely free.
local function learn_run(tenant, took)
  local known = tonumber(redis.call('HGET', 'hg1:tenant:' .. tenant, 'run_ms') or took)
  redis.call('HSET', 'hg1:tenant:' .. tenant, 'run_ms', int(math.floor(known + (took - known) / 8)))
end

-- The run ends when no node is left and no execution is open.
local function maybe_end(run)
  if run.left > 0 or (run.status ~= 'running' and run.status ~= 'cancelling') then return end
  local purse = read_purse(RG)  -- none: it was cancelled while it waited, and had neither money nor a place
  if purse and purse.open > 0 then return end
  local key = 'hg1:run:' .. RG
  local flags = redis.call('HMGET', key, 'required_failed', 'degraded')
  local outcome = 'succeeded'
  if run.terminated then outcome = 'terminated_by_cost'
  elseif run.status == 'cancelling' then outcome = 'cancelled'
  elseif flags[1] then outcome = 'failed'
  elseif flags[2] then outcome = 'degraded' end
  local released = 0
  if purse then
    released = release_hold(RG)
    learn_run(run.tenant, NOW - redis.call('HGET', key, 'created'))
  end
  redis.call('HDEL', 'hg1:caps', RG)
  redis.call('HDEL', 'hg1:ranks', RG)
  local counts = {}
  for _, name in ipairs({'succeeded', 'failed', 'timed_out', 'skipped', 'cancelled', 'upstream_failed'}) do
    local n = redis.call('HGET', key, 'n:' .. name)
    if n then counts[name] = tonumber(n) end
  end
  run.status = 'ended'
  redis.call('HSET', key, 'status', 'ended', 'outcome', outcome)
  redis.call('ZREM', 'hg1:runs', RG)
  emit({t = 'run.ended', tenant = run.tenant, run = RUN, gen = tonumber(GEN), outcome = outcome, cost = int(purse and purse.spent or 0),
    released = int(released), counts = counts})
  hurry()
end

-- Whether everything of the tenant or of the platform was cancelled since the run was admitted.
local function is_fenced(tenant)
  local fences = redis.call('HMGET', 'hg1:fence', 'platform', 'tenant:' .. tenant)
  local at = math.max(tonumber(fences[1] or -1), tonumber(fences[2] or -1))
  return at >= 0 and tonumber(redis.call('HGET', 'hg1:run:' .. RG, 'created')) <= at
end

-- As the gate asks of a message that was popped before the pause.
local function is_paused(tenant)
  for _, paused in ipairs(redis.call('SMISMEMBER', 'hg1:paused', 'platform', 'tenant:' .. tenant, 'run:' .. RG)) do
    if paused == 1 then return true end
  end
  return false
end

local function progress()
  redis.call('ZADD', 'hg1:runs', 'XX', int(NOW), RG)
end

-- Children that are due and not begun: what a repeated reply names again.
local function due_children(node)
  local due = {}
  local ctl = ctl_of(node)
  for _, child in ipairs(ctl.next) do
    if state_of(child) == 'due' then due[#due + 1] = child end
  end
  for _, join in ipairs(ctl.joins or {}) do
    if state_of(join[1]) == 'due' then due[#due + 1] = join[1] end
  end
  return due
end

-- An execution whose worker is gone: its money returns, its lease ends. Returns how many were lost so far.
local function close_lost(run, node, lease)
  redis.call('HDEL', 'hg1:lease:' .. RG, node)
  node_event('node.lost', run.tenant, node, {attempt = tonumber(lease.attempt), inc = lease.inc})
  void(RUN, GEN, node, lease.attempt, 'lost', true)
  count_needed(need_of(node, ctl_of(node)))
  return redis.call('HINCRBY', 'hg1:attempt:' .. RG, node .. ':lost', 1)
end
