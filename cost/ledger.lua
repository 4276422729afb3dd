-- Money: holds of runs, reservations of executions, settlement; the rules are in docs/money.md. Amounts are whole micros as decimal strings.
--
-- hg1:tenant:{tenant}        by policy limit_day, limit_month ('' = none), enforcement (enforce, observe, off); counters held (unspent holds),
--                            reserved (open reservations, of whatever day), running
-- hg1:spent:{tenant}:{book}  settled, reserved, waste, c:{category}; a book is a day (since 1970-01-01 UTC) or a month, m{yyyymm}
-- hg1:purse:{run}.{gen}      tenant, hold, needed (floor of required nodes that wait: nothing else takes that from the hold), budget ('' = none),
--                            reserved, spent, open, lapsed (1: paused for so long that what it held is free)
-- hg1:away                   zset {run}.{gen} -> since when it is paused and has no place
-- hg1:open:{run}.{gen}       set of node:attempt, the executions not yet settled
-- hg1:res:{run}.{gen}        node:attempt -> state|amount|parts|actual|cats|since; state open, settled, void, waste; parts day=amount,..
-- hg1:settled_by             who settled -> executions
-- @include cost/period
local DAY = math.floor(NOW / 86400000)
local MONTH = month_of(DAY)
local MICROS_MAX = 9007199254740991
local CATEGORIES = {llm = true, retrieval = true, storage = true, compute = true, other = true}

-- A whole amount within 0..2^53-1, or an error: Lua's tonumber also takes "0x10", "1e3" and "nan".
local function micros(text)
  local n = tostring(text):match('^%d+$') and #text <= 16 and tonumber(text)
  if not n or n > MICROS_MAX then error('AMOUNT ' .. tostring(text):sub(1, 40) .. ' is not a whole number of micros') end
  return n
end

-- The sums of a period: read once in a script, changed here, written once by `write_books`.
local BOOK = {'settled', 'reserved', 'waste', 'c:compute', 'c:llm', 'c:other', 'c:retrieval', 'c:storage'}
local read_books = {}

local function book_of(tenant, name)
  local key = 'hg1:spent:' .. tenant .. ':' .. name
  local book = read_books[key]
  if not book then
    local row = redis.call('HMGET', key, unpack(BOOK))
    book = {changed = {}}
    for i, field in ipairs(BOOK) do book[field] = tonumber(row[i] or 0) end
    read_books[key] = book
  end
  return book
end

local function add_to(book, field, amount)
  book[field], book.changed[field] = book[field] + amount, true
end

-- The books of a day and of its month.
local function books_of(tenant, day)
  return {book_of(tenant, int(day)), book_of(tenant, 'm' .. month_of(day))}
end

local function write_books()
  for key, book in pairs(read_books) do
    local changes = {}
    for _, field in ipairs(BOOK) do
      if book.changed[field] then
        changes[#changes + 1] = field
        changes[#changes + 1] = int(book[field])
      end
    end
    if #changes > 0 then
      redis.call('HSET', key, unpack(changes))
      book.changed = {}
    end
  end
end

-- @include cost/levels
local function names_of(cats)
  local names = {}
  for name in pairs(cats) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- Usage `llm=30000,compute=12`: amounts by known category without zeros, their sum, and the same as text, sorted.
local function read_cats(text)
  local cats, total, seen, written = {}, 0, {}, {}
  for item in (text .. ','):gmatch('([^,]*),') do
    if item ~= '' then
      local name, amount = item:match('^([^=]+)=(.*)$')
      if not name then error('AMOUNT ' .. item:sub(1, 40) .. ' is not category=micros') end
      if seen[name] then error('AMOUNT ' .. name .. ' is named twice') end
      seen[name] = true
      local n, category = micros(amount), CATEGORIES[name] and name or 'other'
      if n > 0 then cats[category] = (cats[category] or 0) + n end
      total = total + n
    end
  end
  if total > MICROS_MAX then error('AMOUNT the sum of all categories is not a whole number of micros') end
  for i, name in ipairs(names_of(cats)) do written[i] = name .. '=' .. int(cats[name]) end
  return cats, total, table.concat(written, ',')
end

local function decimals(cats)
  local texts = {}
  for category, amount in pairs(cats) do texts[category] = int(amount) end
  return texts
end

local function read_purse(rg)
  local row = redis.call('HMGET', 'hg1:purse:' .. rg, 'tenant', 'hold', 'budget', 'reserved', 'spent', 'open', 'needed')
  if not row[1] then return nil end
  return {tenant = row[1], hold = tonumber(row[2]), budget = row[3], reserved = tonumber(row[4]),
          spent = tonumber(row[5]), open = tonumber(row[6]), needed = tonumber(row[7] or 0)}
end

-- What a tenant may still promise: the least over its day and its month of limit - exposure, never below 0. Exposure is what is settled in the
-- period, open reservations of any period, and holds: an old reservation may yet return to a hold of today.
-- Returns room; limit and exposure of the period that leaves the least; true where that is the month.
local function room(tenant)
  local row = redis.call('HMGET', 'hg1:tenant:' .. tenant, 'limit_day', 'limit_month', 'held', 'reserved')
  local promised = (row[3] or 0) + (row[4] or 0)
  local limit = micros(row[1])
  local exposure = promised + (redis.call('HGET', 'hg1:spent:' .. tenant .. ':' .. DAY, 'settled') or 0)
  local monthly = false
  if row[2] and row[2] ~= '' then
    local most = micros(row[2])
    local exposed = promised + (redis.call('HGET', 'hg1:spent:' .. tenant .. ':m' .. MONTH, 'settled') or 0)
    if most - exposed < limit - exposure then limit, exposure, monthly = most, exposed, true end
  end
  return math.max(0, limit - exposure), limit, exposure, monthly
end

local function read_parts(text)
  local parts = {}
  for day, amount in text:gmatch('(%d+)=(%d+)') do parts[#parts + 1] = {day = tonumber(day), amount = tonumber(amount)} end
  return parts
end

local function read_res(rg, node, attempt)
  local row = redis.call('HGET', 'hg1:res:' .. rg, node .. ':' .. attempt)
  if not row then return nil end
  local state, amount, parts, actual, cats, since = row:match('^(.-)|(.-)|(.-)|(.-)|(.-)|(.*)$')
  return {state = state, amount = tonumber(amount), parts = read_parts(parts), actual = actual, cats = cats, since = since}
end

local function write_res(rg, node, attempt, r)
  local parts = {}
  for i, part in ipairs(r.parts) do parts[i] = int(part.day) .. '=' .. int(part.amount) end
  redis.call('HSET', 'hg1:res:' .. rg, node .. ':' .. attempt,
    r.state .. '|' .. int(r.amount) .. '|' .. table.concat(parts, ',') .. '|' .. r.actual .. '|' .. r.cats .. '|' .. r.since)
end

local function execution_event(kind, rg, tenant, node, attempt, fields)
  local run, gen = rg:match('^(.*)%.(%d+)$')
  fields.t, fields.tenant, fields.run, fields.gen, fields.node, fields.attempt = kind, tenant, run, tonumber(gen), node, tonumber(attempt)
  emit(fields)
end

-- Each of the three changes one amount in every counter that knows it: in the tenant's at once, in the purse and the books as they were read.
-- `put_back` writes those.
local function count_held(purse, change)
  if change == 0 then return end
  purse.hold = purse.hold + change
  redis.call('HINCRBY', 'hg1:tenant:' .. purse.tenant, 'held', int(change))
end

local function count_reserved(purse, day, change)
  if change == 0 then return end
  purse.reserved = purse.reserved + change
  redis.call('HINCRBY', 'hg1:tenant:' .. purse.tenant, 'reserved', int(change))
  for _, book in ipairs(books_of(purse.tenant, day)) do add_to(book, 'reserved', change) end
end

local function count_charged(purse, day, cats, total, waste)
  for _, book in ipairs(books_of(purse.tenant, day)) do
    add_to(book, 'settled', total)
    if waste then add_to(book, 'waste', total) end
    for category, amount in pairs(cats) do add_to(book, 'c:' .. category, amount) end
  end
  purse.spent = purse.spent + total
end

local function put_back(rg, purse)
  redis.call('HSET', 'hg1:purse:' .. rg, 'hold', int(purse.hold), 'needed', int(purse.needed), 'reserved', int(purse.reserved),
    'spent', int(purse.spent), 'open', int(purse.open))
  write_books()
end

-- Whether a refusal of money stands: 'observe' tells of it instead, and 'off' does not.
local function is_enforced(tenant, refusal, rg, fields)
  local mode = redis.call('HGET', 'hg1:tenant:' .. tenant, 'enforcement')
  if not mode or mode == '' or mode == 'enforce' then return true end
  if mode == 'observe' then
    fields.reason, fields.limit, fields.current = refusal.reason, refusal.limit, refusal.current
    execution_event('money.would_refuse', rg, tenant, fields.node, fields.attempt, fields)
  end
  return false
end

-- A run is let in, whoever decided that it may: it takes a place, and the estimate is held as far as it fits. Returns the hold.
local function hold_run(rg, tenant, estimate, budget, floor)
  local hold = estimate
  local mode = redis.call('HGET', 'hg1:tenant:' .. tenant, 'enforcement')
  if not mode or mode == '' or mode == 'enforce' then
    hold = math.min(hold, (room(tenant)))
    if budget ~= '' then hold = math.min(hold, micros(budget)) end
  end
  redis.call('HSET', 'hg1:purse:' .. rg, 'tenant', tenant, 'hold', int(hold), 'needed', int(floor), 'budget', budget,
    'reserved', 0, 'spent', 0, 'open', 0)
  redis.call('HINCRBY', 'hg1:tenant:' .. tenant, 'held', int(hold))
  redis.call('HINCRBY', 'hg1:tenant:' .. tenant, 'running', 1)
  return hold
end

-- What the hold gives to an amount; it keeps what required nodes need, and only the rest is new exposure.
-- Returns that, and where the rest does not fit {reason, limit, current}.
local function fund(purse, amount, needed)
  local taken = math.min(amount, math.max(0, purse.hold - needed))
  local excess, short = amount - taken, math.max(0, needed - purse.hold)
  if excess == 0 then return taken end
  local free, limit, exposure = room(purse.tenant)
  if excess > free - short then return taken, {reason = 'budget', limit = int(limit), current = int(exposure)} end
  if purse.budget ~= '' then
    local budget, promised = micros(purse.budget), purse.spent + purse.reserved + purse.hold
    if excess > math.max(0, budget - promised) - short then
      return taken, {reason = 'run_budget', limit = int(budget), current = int(promised)}
    end
  end
  return taken
end

-- Set money aside for an execution before it starts. `floor`: what `needed` has of its node, which starts with this.
-- Returns true and what the hold gave, or false and {reason, limit, current}.
local function reserve(rg, node, attempt, amount, floor)
  local purse = read_purse(rg)
  local taken, refusal = fund(purse, amount, purse.needed - (floor or 0))
  if refusal and is_enforced(purse.tenant, refusal, rg, {node = node, attempt = attempt, amount = int(amount)}) then return false, refusal end
  purse.needed, purse.open = purse.needed - (floor or 0), purse.open + 1
  redis.call('SADD', 'hg1:open:' .. rg, node .. ':' .. attempt)
  count_held(purse, -taken)
  count_reserved(purse, DAY, amount)
  put_back(rg, purse)
  write_res(rg, node, attempt, {state = 'open', amount = amount, parts = {{day = DAY, amount = amount}}, actual = '0', cats = '',
    since = int(NOW)})
  take_levels(purse.tenant, rg .. '.' .. node .. '.' .. attempt)
  return true, taken
end

-- Write down what an open execution used, for whoever settles it.
local function note_usage(rg, node, attempt, cats)
  local r = read_res(rg, node, attempt)
  if r and r.state == 'open' then
    local _, total, text = read_cats(cats)
    r.cats, r.actual, r.since = text, int(total), int(NOW)
    write_res(rg, node, attempt, r)
  end
end

-- Raise the reservation of a running execution to what it uses by now, in the period of now, and write that down.
-- Returns ok, closed (what it goes on to use is waste) or unknown; or refused and {reason, limit, current}, and nothing has changed.
local function extend(rg, node, attempt, cats)
  local purse, r = read_purse(rg), read_res(rg, node, attempt)
  if not purse or not r then return 'unknown' end
  if r.state ~= 'open' then return 'closed' end
  local _, total, text = read_cats(cats)
  local more = total - r.amount
  if more > 0 then
    local taken, refusal = fund(purse, more, purse.needed)
    if refusal and is_enforced(purse.tenant, refusal, rg, {node = node, attempt = attempt, amount = int(more)}) then return 'refused', refusal end
    count_held(purse, -taken)
    count_reserved(purse, DAY, more)
    put_back(rg, purse)
    local last = r.parts[#r.parts]
    if last.day == DAY then last.amount = last.amount + more
    else r.parts[#r.parts + 1] = {day = DAY, amount = more} end
    r.amount = total
    execution_event('money.extended', rg, purse.tenant, node, attempt, {amount = int(more), day = DAY, to_hold = int(-taken)})
    take_levels(purse.tenant, rg .. '.' .. node .. '.' .. attempt)
  end
  -- What is told late, after more was told, takes nothing back.
  if total >= tonumber(r.actual) then r.cats, r.actual = text, int(total) end
  r.since = int(NOW)
  write_res(rg, node, attempt, r)
  return 'ok'
end

-- The reservation ends, in each period that it was made in, and `to_hold` moves to the hold (less than 0: from it).
local function close(rg, purse, node, attempt, r, to_hold)
  purse.open = purse.open - 1
  redis.call('SREM', 'hg1:open:' .. rg, node .. ':' .. attempt)
  for _, part in ipairs(r.parts) do count_reserved(purse, part.day, -part.amount) end
  count_held(purse, to_hold)
end

-- Categories, in the order of their names, fill the parts in theirs; the last part takes the rest. Returns {day, reserved, cats, total} of each.
local function spread(cats, parts)
  local lines, at = {}, 1
  for i, part in ipairs(parts) do lines[i] = {day = part.day, reserved = part.amount, cats = {}, total = 0} end
  for _, category in ipairs(names_of(cats)) do
    local rest = cats[category]
    while rest > 0 do
      local line = lines[at]
      local fits = at < #lines and math.min(rest, line.reserved - line.total) or rest
      if fits > 0 then line.cats[category], line.total = fits, line.total + fits end
      rest = rest - fits
      if rest > 0 then at = at + 1 end
    end
  end
  return lines
end

-- Of an event, when there is more than one part: what each of them had reserved and is charged.
local function told_parts(lines)
  if #lines < 2 then return nil end
  local parts = {}
  for i, line in ipairs(lines) do parts[i] = {day = line.day, reserved = int(line.reserved), cats = decimals(line.cats)} end
  return parts
end

-- Charge an execution, once. What is unspent returns to the hold while the run goes on (`unfinished`); what it cost beyond its reservation is
-- paid by the hold, and only the rest is new exposure. `used` is usage by unit, for the record.
-- Returns settled, same, conflict, waste (it was void) or unknown.
local function settle(run, gen, node, attempt, text, by, unfinished, price_version, used)
  local rg = run .. '.' .. gen
  local purse, r = read_purse(rg), read_res(rg, node, attempt)
  if not purse or not r then return 'unknown' end
  local cats, total, written = read_cats(text)
  if r.state == 'settled' or r.state == 'waste' then
    return (r.actual == int(total) and r.cats == written) and 'same' or 'conflict'
  end
  local waste = r.state ~= 'open'
  local aside, parts = r.amount, r.parts
  if waste then aside, parts = 0, {{day = parts[#parts].day, amount = 0}} end
  local to_hold = 0
  if total > aside then to_hold = -math.min(total - aside, purse.hold)
  elseif unfinished then to_hold = aside - total end
  if waste then count_held(purse, to_hold) else close(rg, purse, node, attempt, r, to_hold) end
  local lines = spread(cats, parts)
  for _, line in ipairs(lines) do count_charged(purse, line.day, line.cats, line.total, waste) end
  put_back(rg, purse)
  r.state, r.actual, r.cats, r.since = waste and 'waste' or 'settled', int(total), written, int(NOW)
  write_res(rg, node, attempt, r)
  if not waste then redis.call('HINCRBY', 'hg1:settled_by', by, 1) end
  local over = math.max(0, total - aside) + math.min(0, to_hold)
  execution_event('money.settled', rg, purse.tenant, node, attempt, {amount = int(total), cats = decimals(cats), reserved = int(aside),
    day = parts[1].day, by = by, kind = waste and 'waste' or 'settle', to_hold = int(to_hold), overshoot = over > 0 and int(over) or nil,
    price_version = price_version ~= '' and price_version or nil, lines = used ~= '' and used or nil, parts = told_parts(lines)})
  take_levels(purse.tenant, rg .. '.' .. node .. '.' .. attempt)
  return r.state
end

-- Give a reservation back whole. Returns void, same, conflict or unknown.
local function void(run, gen, node, attempt, by, unfinished)
  local rg = run .. '.' .. gen
  local purse, r = read_purse(rg), read_res(rg, node, attempt)
  if not purse or not r then return 'unknown' end
  if r.state == 'void' then return 'same' end
  if r.state ~= 'open' then return 'conflict' end
  local to_hold = unfinished and r.amount or 0
  close(rg, purse, node, attempt, r, to_hold)
  put_back(rg, purse)
  r.state, r.since = 'void', int(NOW)
  write_res(rg, node, attempt, r)
  execution_event('money.voided', rg, purse.tenant, node, attempt, {reserved = int(r.amount), day = r.parts[1].day, by = by,
    kind = by == 'lost' and 'expire' or 'void', to_hold = int(to_hold), parts = told_parts(spread({}, r.parts))})
  take_levels(purse.tenant, rg .. '.' .. node .. '.' .. attempt)
  return 'void'
end

-- A plan changed what is pending: the hold falls to what that costs, `left`, and never below what required nodes need. With `raised` it also
-- rises to that, as far as there is room. Returns what the hold gained, less than 0 where it gave back.
local function hold_to(rg, left, raised)
  local purse = read_purse(rg)
  local moved = math.max(left, purse.needed) - purse.hold
  if moved > 0 then
    local free = raised and room(purse.tenant) or 0
    if purse.budget ~= '' then free = math.min(free, math.max(0, micros(purse.budget) - purse.spent - purse.reserved - purse.hold)) end
    moved = math.min(moved, free)
  end
  if moved ~= 0 then
    count_held(purse, moved)
    put_back(rg, purse)
  end
  return moved
end

-- A run's own limit is raised to `text`, decimal micros, where it has one that is lower ('' = it stays). Returns the one that holds, '' for none.
local function raise_budget(rg, text)
  local purse = read_purse(rg)
  if not purse then return '' end
  if text ~= '' and purse.budget ~= '' and micros(text) > micros(purse.budget) then
    redis.call('HSET', 'hg1:purse:' .. rg, 'budget', text)
    return text
  end
  return purse.budget
end

-- A run that is paused gives its place up, and takes it again when it goes on. Each returns whether that is new.
local function leave_place(rg, tenant)
  if redis.call('ZADD', 'hg1:away', 'NX', int(NOW), rg) == 0 then return false end
  redis.call('HINCRBY', 'hg1:tenant:' .. tenant, 'running', -1)
  return true
end

local function take_place(rg, tenant)
  if redis.call('ZREM', 'hg1:away', rg) == 0 then return false end
  redis.call('HINCRBY', 'hg1:tenant:' .. tenant, 'running', 1)
  return true
end

-- The run is over: what it still held is free again, and so is its place. Returns what it held.
local function release_hold(rg)
  local purse = read_purse(rg)
  local hold = purse.hold
  purse.needed = 0
  count_held(purse, -hold)
  put_back(rg, purse)
  leave_place(rg, purse.tenant)
  redis.call('ZREM', 'hg1:away', rg)
  return hold
end
