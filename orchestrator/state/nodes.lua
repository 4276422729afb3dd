-- Nodes and runs: outcomes, joins, the end of a run. Suffix {rg} = {run}.{gen}.
--
-- hg1:run:{rg}      tenant graph status total left outcome estimate floor hold created degraded required_failed reason priority n:{outcome}
-- hg1:state:{rg}    node -> pending, due, running or its outcome        hg1:wait:{rg}     node -> parents that stand in its way
-- hg1:ctl:{rg}      node -> JSON {amounts, floor, required, attempts, next}  hg1:spec:{rg}     node -> JSON for the worker
-- hg1:attempt:{rg}  node -> claims; node:fails, node:lost, node:done    hg1:lease:{rg}    node -> attempt|inc|tag|delivery|since
-- hg1:due:{rg}      zset node -> since                                  hg1:cascade:{rg}  list of nodes whose fate is sealed
-- hg1:result:{rg}, hg1:fault:{rg}, hg1:verdict:{rg}, hg1:notbefore:{rg} node -> value
-- hg1:fragment:{rg} index -> JSON of a fragment; of:{node} -> index
-- hg1:runs          zset rg -> last progress
local RUN, GEN = ARGV[2], ARGV[3]
local RG = RUN .. '.' .. GEN
local UNFINISHED = {pending = true, due = true, running = true}
local due_now = {}

local function task_id(node)
  return RG .. '.' .. node
end

local function get_run()
  local row = redis.call('HMGET', 'hg1:run:' .. RG, 'tenant', 'status', 'left')
  if not row[2] then return nil end
  return {tenant = row[1], status = row[2], left = tonumber(row[3])}
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
-- still to be settled: that comes back with the settlement, and until then it is there.
local function need_of(node, ctl)
  local floor = micros(ctl.floor or '0')
  local attempt = floor > 0 and redis.call('HGET', 'hg1:attempt:' .. RG, node)
  if attempt and redis.call('SISMEMBER', 'hg1:open:' .. RG, node .. ':' .. attempt) == 1 then return 0 end
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

-- What an outcome changes in state; `adopt` says it of what an earlier generation did, everybody else by `set_outcome`.
local function write_outcome(run, node, outcome, ctl)
  redis.call('HSET', 'hg1:state:' .. RG, node, outcome)
  if redis.call('HDEL', 'hg1:lease:' .. RG, node) == 0 then count_needed(-need_of(node, ctl)) end
  redis.call('ZREM', 'hg1:due:' .. RG, node)
  run.left = redis.call('HINCRBY', 'hg1:run:' .. RG, 'left', -1)
  redis.call('HINCRBY', 'hg1:run:' .. RG, 'n:' .. outcome, 1)
  if outcome ~= 'succeeded' then
    redis.call('HSET', 'hg1:run:' .. RG, ctl.required and 'required_failed' or 'degraded', 1)
  end
end

-- The one place where a node gets its outcome; its message, if any is still in line, is forgotten.
local function set_outcome(run, node, outcome, fields, ctl)
  write_outcome(run, node, outcome, ctl)
  fields.outcome = outcome
  node_event('node.ended', run.tenant, node, fields)
end

-- Count down the children of a node that ended. `passes`: the node does not stand in their way.
local function propagate(run, node, passes, ctl)
  if run.status == 'cancelling' then return end
  for _, child in ipairs(ctl.next) do
    if not passes then
      redis.call('RPUSH', 'hg1:cascade:' .. RG, child)
    elseif redis.call('HINCRBY', 'hg1:wait:' .. RG, child, -1) == 0 and state_of(child) == 'pending' then
      make_due(child)
      due_now[#due_now + 1] = child
    end
  end
end

local function passes(outcome, ctl)
  return outcome == 'succeeded' or outcome == 'skipped' or (not ctl.required and (outcome == 'failed' or outcome == 'timed_out'))
end

-- Write the fate of descendants: at most `limit` nodes. Returns 1 when there are more.
local function cascade(run, limit)
  for _ = 1, limit do
    local node = redis.call('LPOP', 'hg1:cascade:' .. RG)
    if not node then return 0 end
    local state = state_of(node)
    if state == 'pending' or state == 'due' then
      local ctl = ctl_of(node)
      drop_once(task_id(node))
      set_outcome(run, node, 'upstream_failed', {reason = 'a required node before it did not succeed'}, ctl)
      propagate(run, node, false, ctl)
    end
  end
  return redis.call('LLEN', 'hg1:cascade:' .. RG) > 0 and 1 or 0
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
  if run.status == 'cancelling' then outcome = 'cancelled'
  elseif flags[1] then outcome = 'failed'
  elseif flags[2] then outcome = 'degraded' end
  local released = 0
  if purse then
    released = release_hold(RG)
    learn_run(run.tenant, NOW - redis.call('HGET', key, 'created'))
  end
  redis.call('HDEL', 'hg1:caps', RG)
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
end

local function progress()
  redis.call('ZADD', 'hg1:runs', 'XX', int(NOW), RG)
end

-- Children that are due and not begun: what a repeated reply names again.
local function due_children(node)
  local due = {}
  for _, child in ipairs(ctl_of(node).next) do
    if state_of(child) == 'due' then due[#due + 1] = child end
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
