-- Money: holds of runs, reservations of executions, settlement. Amounts are whole micros as decimal strings.
--
-- hg1:tenant:{tenant}       limit_day, max_runs, status, version; held, running
-- hg1:spent:{tenant}:{day}  settled, reserved, waste, c:{category}; day = days since 1970-01-01 UTC
-- hg1:purse:{run}.{gen}     tenant, hold, budget ('' = none), reserved, spent, open
-- hg1:open:{run}.{gen}      set of node:attempt, the executions not yet settled
-- hg1:res:{run}.{gen}       node:attempt -> state|amount|day|actual|cats|since; state open, settled, void, waste
local DAY = int(math.floor(NOW / 86400000))
local MICROS_MAX = 9007199254740991

-- A whole amount within 0..2^53-1, or an error: Lua's tonumber also takes "0x10", "1e3" and "nan".
local function micros(text)
  local n = tostring(text):match('^%d+$') and #text <= 16 and tonumber(text)
  if not n or n > MICROS_MAX then error('AMOUNT ' .. tostring(text) .. ' is not a whole number of micros') end
  return n
end

local function read_cats(text)
  local cats, total = {}, 0
  for category, amount in text:gmatch('([^=,]+)=([^,]*)') do
    if cats[category] then error('AMOUNT ' .. category .. ' is named twice') end
    cats[category] = micros(amount)
    total = total + cats[category]
  end
  return cats, total
end

local function read_purse(rg)
  local row = redis.call('HMGET', 'hg1:purse:' .. rg, 'tenant', 'hold', 'budget', 'reserved', 'spent', 'open')
  if not row[1] then return nil end
  return {tenant = row[1], hold = tonumber(row[2]), budget = row[3], reserved = tonumber(row[4]),
          spent = tonumber(row[5]), open = tonumber(row[6])}
end

-- Room of a tenant today: limit - (settled + reserved + held); may be negative.
local function room(tenant)
  local row = redis.call('HMGET', 'hg1:tenant:' .. tenant, 'limit_day', 'held')
  local spent = redis.call('HMGET', 'hg1:spent:' .. tenant .. ':' .. DAY, 'settled', 'reserved')
  return micros(row[1]) - (tonumber(row[2] or 0) + tonumber(spent[1] or 0) + tonumber(spent[2] or 0))
end

local function read_res(rg, node, attempt)
  local row = redis.call('HGET', 'hg1:res:' .. rg, node .. ':' .. attempt)
  if not row then return nil end
  local state, amount, day, actual, cats, since = row:match('^(.-)|(.-)|(.-)|(.-)|(.-)|(.*)$')
  return {state = state, amount = tonumber(amount), day = day, actual = actual, cats = cats, since = since}
end

local function write_res(rg, node, attempt, r)
  redis.call('HSET', 'hg1:res:' .. rg, node .. ':' .. attempt,
    r.state .. '|' .. int(r.amount) .. '|' .. r.day .. '|' .. r.actual .. '|' .. r.cats .. '|' .. r.since)
end

-- A run is let in, whoever decided that it may: it takes a place, and the estimate is held as far as it fits. Returns the hold.
local function hold_run(rg, tenant, estimate, budget)
  local hold = math.min(estimate, room(tenant))
  if budget ~= '' then hold = math.min(hold, micros(budget)) end
  redis.call('HSET', 'hg1:purse:' .. rg, 'tenant', tenant, 'hold', int(hold), 'budget', budget,
    'reserved', 0, 'spent', 0, 'open', 0)
  redis.call('HINCRBY', 'hg1:tenant:' .. tenant, 'held', int(hold))
  redis.call('HINCRBY', 'hg1:tenant:' .. tenant, 'running', 1)
  return hold
end

-- Money moves from the hold to the reservation; only an excess is new exposure. Returns true, or false when refused.
local function reserve(rg, node, attempt, amount)
  local purse = read_purse(rg)
  local taken = math.min(amount, purse.hold)
  local excess = amount - taken
  if excess > 0 then
    if excess > room(purse.tenant) then return false end
    if purse.budget ~= '' and purse.spent + purse.reserved + purse.hold + excess > micros(purse.budget) then return false end
  end
  local key = 'hg1:purse:' .. rg
  redis.call('HINCRBY', key, 'hold', int(-taken))
  redis.call('HINCRBY', key, 'reserved', int(amount))
  redis.call('HINCRBY', key, 'open', 1)
  redis.call('SADD', 'hg1:open:' .. rg, node .. ':' .. attempt)
  redis.call('HINCRBY', 'hg1:tenant:' .. purse.tenant, 'held', int(-taken))
  redis.call('HINCRBY', 'hg1:spent:' .. purse.tenant .. ':' .. DAY, 'reserved', int(amount))
  write_res(rg, node, attempt, {state = 'open', amount = amount, day = DAY, actual = '0', cats = '', since = int(NOW)})
  return true
end

-- Write down what an open execution used, for whoever settles it.
local function note_usage(rg, node, attempt, cats)
  local r = read_res(rg, node, attempt)
  if r and r.state == 'open' then
    local _, total = read_cats(cats)
    r.cats, r.actual, r.since = cats, int(total), int(NOW)
    write_res(rg, node, attempt, r)
  end
end

-- The reservation ends; its unspent part returns to the hold while the run goes on.
local function close(rg, purse, node, attempt, r, actual, unfinished)
  local key = 'hg1:purse:' .. rg
  redis.call('HINCRBY', key, 'reserved', int(-r.amount))
  redis.call('HINCRBY', key, 'open', -1)
  redis.call('SREM', 'hg1:open:' .. rg, node .. ':' .. attempt)
  redis.call('HINCRBY', 'hg1:spent:' .. purse.tenant .. ':' .. r.day, 'reserved', int(-r.amount))
  local refund = math.max(0, r.amount - actual)
  if unfinished and refund > 0 then
    redis.call('HINCRBY', key, 'hold', int(refund))
    redis.call('HINCRBY', 'hg1:tenant:' .. purse.tenant, 'held', int(refund))
  end
end

local function book(rg, purse, day, cats, total, waste)
  local key = 'hg1:spent:' .. purse.tenant .. ':' .. day
  redis.call('HINCRBY', key, 'settled', int(total))
  if waste then redis.call('HINCRBY', key, 'waste', int(total)) end
  for category, amount in pairs(cats) do redis.call('HINCRBY', key, 'c:' .. category, int(amount)) end
  redis.call('HINCRBY', 'hg1:purse:' .. rg, 'spent', int(total))
end

-- Returns settled, same, conflict, waste or unknown.
local function settle(run, gen, node, attempt, text, by, unfinished)
  local rg = run .. '.' .. gen
  local purse, r = read_purse(rg), read_res(rg, node, attempt)
  if not purse or not r then return 'unknown' end
  local cats, total = read_cats(text)
  if r.state == 'settled' or r.state == 'waste' then
    return (r.actual == int(total) and r.cats == text) and 'same' or 'conflict'
  end
  local kind = r.state == 'open' and 'settle' or 'waste'
  if kind == 'settle' then close(rg, purse, node, attempt, r, total, unfinished) end
  book(rg, purse, r.day, cats, total, kind == 'waste')
  r.state, r.actual, r.cats, r.since = kind == 'settle' and 'settled' or 'waste', int(total), text, int(NOW)
  write_res(rg, node, attempt, r)
  local strings = {}
  for category, amount in pairs(cats) do strings[category] = int(amount) end
  emit({t = 'money.settled', tenant = purse.tenant, run = run, gen = tonumber(gen), node = node, attempt = tonumber(attempt),
        amount = int(total), cats = strings, reserved = int(r.amount), day = tonumber(r.day), by = by, kind = kind})
  return r.state
end

-- Returns void, same, conflict or unknown.
local function void(run, gen, node, attempt, by, unfinished)
  local rg = run .. '.' .. gen
  local purse, r = read_purse(rg), read_res(rg, node, attempt)
  if not purse or not r then return 'unknown' end
  if r.state == 'void' then return 'same' end
  if r.state ~= 'open' then return 'conflict' end
  close(rg, purse, node, attempt, r, 0, unfinished)
  r.state, r.since = 'void', int(NOW)
  write_res(rg, node, attempt, r)
  emit({t = 'money.voided', tenant = purse.tenant, run = run, gen = tonumber(gen), node = node, attempt = tonumber(attempt),
        reserved = int(r.amount), day = tonumber(r.day), by = by})
  return 'void'
end

-- The run is over: what it still held is free again, and so is its place.
local function release_hold(rg)
  local purse = read_purse(rg)
  redis.call('HSET', 'hg1:purse:' .. rg, 'hold', 0)
  redis.call('HINCRBY', 'hg1:tenant:' .. purse.tenant, 'held', int(-purse.hold))
  redis.call('HINCRBY', 'hg1:tenant:' .. purse.tenant, 'running', -1)
end
