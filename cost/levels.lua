-- Levels of what is committed against a tenant's limits, and what they bring about: docs/budgets.md. Includers define DAY, MONTH, micros and book_of.
--
-- hg1:level:{tenant}   day, month -> period|held|entries: for WARNING, CRITICAL and EXCEEDED each, whether it is entered (0 or 1) and how often
--                      it was in that period; `2026-11-22|100|1,0,0`
-- hg1:calm             tenant -> day|low|high|low|high: while what is committed on that day, and in its month, is in between, no level changes
-- hg1:tenant:{tenant}  limit_day, limit_month ('' = none); warn, critical, exceeded: percent; on_warning, on_critical, on_exceeded: what then
-- @include tenancy/transport/messages
local LEVELS, LEFT_LOWER = {'WARNING', 'CRITICAL', 'EXCEEDED'}, 5
local STRENGTH = {notify = 1, hold = 2, suspend = 3, suspend_now = 4}
local RATE_PPM_MAX = 1000000000
local CALM_MAX = 2 ^ 60 -- above every sum: a level that is never reached
local was_level_entered = false -- by this call

-- The least amount that is so many percent of a limit. In parts: the product may be beyond what a double holds exactly.
local function share_of(limit, percent)
  local rest = math.fmod(limit, 100)
  return percent * ((limit - rest) / 100) + math.ceil(percent * rest / 100)
end

-- floor(committed * 1000000 / limit), bit by bit for the same reason; 1000000 for a limit of 0.
local function rate_ppm(committed, limit)
  if limit == 0 then return 1000000 end
  local rest = math.fmod(committed, limit)
  local whole = (committed - rest) / limit
  if whole >= 1000 then return RATE_PPM_MAX end
  local ppm, r = 0, 0
  for bit = 19, 0, -1 do
    ppm = 2 * ppm
    if r >= limit - r then r, ppm = r - (limit - r), ppm + 1 else r = r + r end
    if math.floor(1000000 / 2 ^ bit) % 2 == 1 then
      if r >= limit - rest then r, ppm = r - (limit - rest), ppm + 1 else r = r + rest end
    end
  end
  return whole * 1000000 + ppm
end

-- A tenant's policy of levels, and the periods of now that have a limit: name, period, limit, committed, when it ends (ms), and the latches.
local function read_levels(tenant)
  local row = redis.call('HMGET', 'hg1:tenant:' .. tenant, 'limit_day', 'limit_month', 'warn', 'critical', 'exceeded', 'on_warning',
    'on_critical', 'on_exceeded', 'enforcement')
  if not row[1] then return nil end
  local y, m, d = date_of(DAY)
  local policy = {percent = {tonumber(row[3]) or 80, tonumber(row[4]) or 90, tonumber(row[5]) or 100}, act = {row[6], row[7], row[8]},
                  acts = row[9] ~= 'observe' and row[9] ~= 'off', tells = row[9] == 'observe'}
  local known = redis.call('HMGET', 'hg1:level:' .. tenant, 'day', 'month')
  local found = {{name = 'day', period = string.format('%04d-%02d-%02d', y, m, d), limit = row[1], spent = int(DAY), ends = (DAY + 1) * 86400000}}
  if row[2] and row[2] ~= '' then
    found[2] = {name = 'month', period = string.format('%04d-%02d', y, m), limit = row[2], spent = 'm' .. MONTH,
                ends = next_month(DAY) * 86400000}
  end
  for i, it in ipairs(found) do
    local book = book_of(tenant, it.spent)
    it.limit, it.committed = micros(it.limit), book.settled + book.reserved
    it.held, it.entries = {false, false, false}, {0, 0, 0}
    local period, held, a, b, c = (known[i] or ''):match('^(.-)|(.-)|(.-),(.-),(.*)$')
    if period == it.period then
      for n = 1, 3 do it.held[n] = held:sub(n, n) == '1' end
      it.entries = {tonumber(a), tonumber(b), tonumber(c)}
    end
  end
  return policy, found
end

-- The strongest action of the levels that are entered (1 notify, 2 hold, 3 suspend), and until when (ms) that strength lasts at most.
local function action_of(policy, periods)
  local strength, ends = 1, 0
  for _, it in ipairs(periods) do
    for n = 1, 3 do
      local own = it.held[n] and policy.acts and STRENGTH[policy.act[n]] or 1
      if own > strength then strength, ends = own, it.ends elseif own == strength then ends = math.max(ends, it.ends) end
    end
  end
  return strength, ends
end

-- Until when (ms) some level that is entered acts with at least that strength; nil: none does.
local function lasts_until(policy, periods, least)
  local ends = nil
  for _, it in ipairs(periods) do
    for n = 1, 3 do
      if it.held[n] and policy.acts and (STRENGTH[policy.act[n]] or 1) >= least then ends = math.max(ends or 0, it.ends) end
    end
  end
  return ends
end

-- Between which amounts committed no level of a period changes: from `low` up to, and without, `high`.
local function calm_between(policy, it)
  local low, high = 0, CALM_MAX
  for n = 1, 3 do
    if it.limit > 0 and it.held[n] then low = math.max(low, share_of(it.limit, policy.percent[n] - LEFT_LOWER)) end
    if not it.held[n] then high = math.min(high, share_of(it.limit, policy.percent[n])) end
  end
  return int(low) .. '|' .. int(high)
end

local function is_calm(tenant)
  local text = redis.call('HGET', 'hg1:calm', tenant)
  if not text then return false end
  local day, low, high, month_low, month_high = text:match('^(%d+)|(%d+)|(%d+)|?(%d*)|?(%d*)$')
  if tonumber(day) ~= DAY then return false end
  local book = book_of(tenant, day)
  local committed = book.settled + book.reserved
  if committed < tonumber(low) or committed >= tonumber(high) then return false end
  if month_low == '' then return true end
  book = book_of(tenant, 'm' .. MONTH)
  committed = book.settled + book.reserved
  return committed >= tonumber(month_low) and committed < tonumber(month_high)
end

-- Enter and leave levels after what is committed, a limit or the policy has changed; `cause` is the execution that changed it. A jump enters
-- those in between; one is left 5 points lower than it was entered; a new period begins at HEALTHY.
local function take_levels(tenant, cause)
  if cause ~= 'policy' and is_calm(tenant) then return end
  local policy, periods = read_levels(tenant)
  if not policy then return end
  local changed = cause == 'policy'
  for _, it in ipairs(periods) do
    local moved = false
    for n, level in ipairs(LEVELS) do
      local percent = policy.percent[n] - (it.held[n] and LEFT_LOWER or 0)
      local holds = it.limit == 0 or it.committed >= share_of(it.limit, percent)
      if holds ~= it.held[n] then
        moved, it.held[n] = true, holds
        if holds then it.entries[n] = it.entries[n] + 1 end
        was_level_entered = was_level_entered or holds
        emit({t = holds and 'level.entered' or 'level.left', tenant = tenant, period = it.period, level = level, entry = it.entries[n],
              rate_ppm = rate_ppm(it.committed, it.limit), committed = int(it.committed), limit = int(it.limit), cause = cause,
              would_act = holds and policy.tells and (STRENGTH[policy.act[n]] or 1) > 1 and policy.act[n] or nil})
      end
    end
    if moved then
      local held = ''
      for n = 1, 3 do held = held .. (it.held[n] and '1' or '0') end
      redis.call('HSET', 'hg1:level:' .. tenant, it.name, it.period .. '|' .. held .. '|' .. table.concat(it.entries, ','))
      changed = true
    end
  end
  local calm = int(DAY)
  for _, it in ipairs(periods) do calm = calm .. '|' .. calm_between(policy, it) end
  redis.call('HSET', 'hg1:calm', tenant, calm)
  if not changed then return end
  stop_until(tenant, lasts_until(policy, periods, STRENGTH.suspend))
  local halted = lasts_until(policy, periods, STRENGTH.suspend_now)
  if halted then redis.call('ZADD', 'hg1:halted', int(halted), tenant) else redis.call('ZREM', 'hg1:halted', tenant) end
end

-- Why a tenant's levels let no new run in: nil, or {limit, current, ends (ms), waits = the policy says that runs wait}.
local function spent_up(tenant)
  local policy, periods = read_levels(tenant)
  if not policy.acts then return nil end
  local full
  for _, it in ipairs(periods) do
    if it.committed >= it.limit and not full then full = {limit = int(it.limit), current = int(it.committed), ends = it.ends} end
  end
  local strength, ends = action_of(policy, periods)
  if strength == 1 then return full end
  local tightest = periods[1]
  return {limit = full and full.limit or int(tightest.limit), current = full and full.current or int(tightest.committed), ends = ends, waits = true}
end
