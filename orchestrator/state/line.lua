-- The line of a tenant's runs that wait to be admitted: first in, first out, nobody overtakes. rg = {run}.{gen}
--
-- hg1:line:{tenant}  zset rg -> order          hg1:waiting  zset tenant -> turn: who waits, in turns
-- hg1:unserved:{tenant}  zset rg -> order: those that wait for a worker stand beside the line, in nobody's way
-- hg1:run:{rg}       of a run that waits: status held, why (runs, budget, backpressure, worker), want (as it was asked for), held (since)
-- hg1:caps           rg -> max_parallel        hg1:tenant:{t}  run_ms: how long a run of the tenant took lately (moving average, 1/8)
-- hg1:nudge          when a submission last found that the line might go on
-- @include orchestrator/state/pressure
local NUDGE_MS = 200
local RETRY_MS, RETRY_MS_MIN, RETRY_MS_MAX = 1000, 100, 60000

local function last_of(key)
  return tonumber(redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2] or 0)
end

local function terms_of(tenant)
  local row = redis.call('HMGET', 'hg1:tenant:' .. tenant, 'limit_day', 'max_runs', 'status', 'running', 'on_runs_limit',
    'on_budget_limit', 'max_waiting_runs', 'pool', 'run_ms', 'held', 'limit_month', 'admit', 'enforcement')
  if not row[1] then return nil end
  local lowest = micros(row[1])
  if row[11] and row[11] ~= '' then lowest = math.min(lowest, micros(row[11])) end
  return {lowest = lowest, in_full = row[12] == 'full', enforcement = row[13] and row[13] ~= '' and row[13] or 'enforce', max_runs = row[2], status = row[3], running = row[4] or '0', rejects_runs = row[5] == 'reject',
          holds_budget = row[6] == 'hold', max_waiting = tonumber(row[7]) or 1000, pool = row[8] and row[8] ~= '' and row[8] or 'default',
          run_ms = tonumber(row[9]), held = tonumber(row[10] or 0), in_line = redis.call('ZCARD', 'hg1:line:' .. tenant),
          beside = redis.call('ZCARD', 'hg1:unserved:' .. tenant)}
end

-- When a place is free, as far as one can tell: runs take run_ms and end one after the other.
local function retry_after(terms)
  local running = tonumber(terms.running)
  local ms = terms.run_ms and running > 0 and math.floor(terms.run_ms / running) or RETRY_MS
  return int(math.max(RETRY_MS_MIN, math.min(RETRY_MS_MAX, ms)))
end

local function pool_of(name, terms)
  return name == '' and terms.pool or name
end

local function unserved(tasks)
  for _, name in ipairs(tasks or {}) do
    if redis.call('HEXISTS', 'hg1:serves', name) == 0 then return true end
  end
end

-- Whether the first of those beside the line could go on by now: nobody passes it either.
local function is_served_now(tenant, terms, rules)
  local rg = redis.call('ZRANGE', 'hg1:unserved:' .. tenant, 0, 0)[1]
  local want = cjson.decode(redis.call('HGET', 'hg1:run:' .. rg, 'want'))
  for _, name in ipairs(want.pools or {}) do
    if capacity_of(pool_of(name, terms), rules) == 0 then return false end
  end
  return not unserved(want.tasks)
end

-- What stands in a run's way: nil, or {why, limit, current, refuse = true where it does not wait, retry = ms or ''}. And what of its money
-- would, if its tenant's limits were enforced: {why, limit, current, least}.
-- in_line: it waits already; then it goes on waiting for a place whatever the policy says of new ones, and passes nobody.
local function hindrance(tenant, want, rules, in_line)
  local terms = terms_of(tenant)
  if not terms then return {why = 'unknown', limit = '', current = '', refuse = true, retry = ''} end
  if terms.status ~= 'active' then
    return {why = terms.status, limit = '', current = '', refuse = not (in_line and terms.status == 'suspended'), retry = ''}
  end
  local enforced = terms.enforcement == 'enforce'
  local least = micros((terms.in_full or want.full == 1) and want.estimate or want.floor)
  local free, limit, exposure, monthly = room(tenant)
  local short
  if least > terms.lowest then
    short = {why = 'budget', limit = int(terms.lowest), current = int(exposure), refuse = true, retry = ''}
  elseif want.budget ~= '' and least > micros(want.budget) then
    short = {why = 'run_budget', limit = want.budget, current = int(least), refuse = true, retry = ''}
  end
  if short and enforced then return short end
  if not in_line and terms.rejects_runs and terms.running + terms.in_line >= tonumber(terms.max_runs) then
    return {why = 'runs', limit = terms.max_runs, current = int(terms.running + terms.in_line), refuse = true, retry = retry_after(terms)}
  end
  local stop
  for _, name in ipairs(want.pools or {}) do
    local pool = pool_of(name, terms)
    local why, capacity, load = look_at(pool, rules)
    if why == 'backpressure' and is_below_share(tenant, pool, capacity, rules) then why = nil end
    if why and not stop then stop = {why = why, limit = int(capacity), current = int(load)} end
  end
  if not stop and unserved(want.tasks) then stop = {why = 'worker', limit = '', current = ''} end
  if not stop and not in_line and terms.beside > 0 and is_served_now(tenant, terms, rules) then
    stop = {why = 'worker', limit = '', current = '', behind = true}
  end
  if not stop and not in_line and terms.in_line > 0 then
    local head = redis.call('ZRANGE', 'hg1:line:' .. tenant, 0, 0)[1]
    stop = {why = redis.call('HGET', 'hg1:run:' .. head, 'why'), limit = '', current = '', behind = true}
  end
  if not stop and tonumber(terms.running) >= tonumber(terms.max_runs) then
    stop = {why = 'runs', limit = terms.max_runs, current = terms.running}
  end
  local full = not stop and spent_up(tenant)
  if full then
    local refuse = not (full.waits or terms.holds_budget)
    stop = {why = 'budget', limit = full.limit, current = full.current, refuse = refuse, retry = int(full.ends - NOW)}
  end
  if not stop and not short and least > free then
    -- Holds return when runs end; what was spent, at midnight (UTC), or when the month ends.
    local ends = (monthly and next_month(DAY) or DAY + 1) * 86400000
    local retry = terms.held >= least - free and retry_after(terms) or int(ends - NOW)
    short = {why = 'budget', limit = int(limit), current = int(exposure), refuse = not terms.holds_budget, retry = retry}
    if enforced then stop = short end
  end
  local waiting = terms.in_line + terms.beside
  if stop and not stop.refuse and not in_line and waiting >= terms.max_waiting then
    stop = {why = 'queue', limit = int(terms.max_waiting), current = int(waiting), refuse = true, retry = retry_after(terms)}
  end
  if short and terms.enforcement == 'observe' then short.least = int(least) else short = nil end
  return stop, short
end

local function run_event(kind, rg, tenant, fields)
  local run, gen = rg:match('^(.*)%.(%d+)$')
  fields.t, fields.tenant, fields.run, fields.gen = kind, tenant, run, tonumber(gen)
  emit(fields)
end

local function refuse_run(rg, tenant, stop)
  run_event('run.refused', rg, tenant, {reason = stop.why, limit = stop.limit, current = stop.current})
end

local function write_run(rg, tenant, want, status, hold)
  redis.call('HSET', 'hg1:run:' .. rg, 'tenant', tenant, 'graph', want.graph, 'status', status, 'total', want.total,
    'left', want.total, 'estimate', want.estimate, 'floor', want.floor, 'hold', int(hold), 'created', int(NOW), 'priority', want.priority)
  if want.on_failure then redis.call('HSET', 'hg1:run:' .. rg, 'on_failure', want.on_failure) end
end

-- A run waits: in line, or beside it while nobody serves it. It keeps its order.
local function say_held(rg, tenant, want, stop)
  local line, beside = 'hg1:line:' .. tenant, 'hg1:unserved:' .. tenant
  local order = redis.call('ZSCORE', line, rg) or redis.call('ZSCORE', beside, rg) or math.max(last_of(line), last_of(beside)) + 1
  redis.call('ZREM', stop.why == 'worker' and line or beside, rg)
  redis.call('ZADD', stop.why == 'worker' and beside or line, order, rg)
  redis.call('HSET', 'hg1:run:' .. rg, 'why', stop.why)
  run_event('run.held', rg, tenant, {graph = want.graph, total = tonumber(want.total), estimate = want.estimate, floor = want.floor,
    why = stop.why, limit = stop.limit, current = stop.current})
end

local function line_up(rg, tenant, text, want, stop)
  redis.call('ZADD', 'hg1:waiting', 'NX', last_of('hg1:waiting') + 1, tenant)
  write_run(rg, tenant, want, 'held', 0)
  redis.call('HSET', 'hg1:run:' .. rg, 'want', text, 'held', int(NOW))
  say_held(rg, tenant, want, stop)
end

local function step_out(rg, tenant)
  redis.call('ZREM', 'hg1:line:' .. tenant, rg)
  redis.call('ZREM', 'hg1:unserved:' .. tenant, rg)
  redis.call('HDEL', 'hg1:run:' .. rg, 'why', 'want', 'held')
  if redis.call('EXISTS', 'hg1:line:' .. tenant, 'hg1:unserved:' .. tenant) == 0 then redis.call('ZREM', 'hg1:waiting', tenant) end
end

-- Money and a place are taken; what the run is about to put in line counts as load from here on. `short`: what would have refused it.
-- Returns the hold.
local function take_in(rg, tenant, want, short)
  if short then
    run_event('money.would_refuse', rg, tenant, {reason = short.why, limit = short.limit, current = short.current, amount = short.least})
  end
  local hold = hold_run(rg, tenant, micros(want.estimate), want.budget, micros(want.floor))
  write_run(rg, tenant, want, 'loading', hold)
  redis.call('ZADD', 'hg1:runs', int(NOW), rg)
  if tonumber(want.max_parallel) then redis.call('HSET', 'hg1:caps', rg, want.max_parallel) end
  local terms, roots = terms_of(tenant), {}
  for name, n in pairs(want.roots or {}) do
    local pool = pool_of(name, terms)
    roots[pool] = (roots[pool] or 0) + n
    count_loading(tenant, pool, n)
  end
  if next(roots) then redis.call('HSET', 'hg1:run:' .. rg, 'roots', cjson.encode(roots)) end
  run_event('run.admitted', rg, tenant, {graph = want.graph, total = tonumber(want.total), estimate = want.estimate, floor = want.floor,
    hold = int(hold), budget = want.budget})
  return hold
end
