-- What Redis says of a tenant's money, at one position of the log; changes nothing. ARGV: S, tenant, first day, last day, most (live runs and
-- open tasks of everybody that are looked through; when there are more, purses are left out).
-- Returns {epoch, seq, {held, reserved, running and those that are away}, {[book, {field, value..}]..} of days and their months, complete 0|1,
-- {[rg, hold, reserved, spent, open, {node:attempt..}]..} of the tenant}.
-- @include tenancy/kernel
-- @include cost/period
local tenant, first, last, most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local books, known = {}, {}
local function add(book)
  local row = not known[book] and redis.call('HGETALL', 'hg1:spent:' .. tenant .. ':' .. book)
  known[book] = true
  if row and #row > 0 then books[#books + 1] = {book, row} end
end
for day = first, last do
  add(int(day))
  add('m' .. month_of(day))
end

local purses = {}
local complete = redis.call('ZCARD', 'hg1:runs') + redis.call('ZCARD', 'hg1:tasks') <= most
local function look(rg)
  local row = redis.call('HMGET', 'hg1:purse:' .. rg, 'tenant', 'hold', 'reserved', 'spent', 'open')
  if row[1] == tenant then
    purses[#purses + 1] = {rg, row[2], row[3], row[4], row[5], redis.call('SMEMBERS', 'hg1:open:' .. rg)}
  end
end
if complete then
  for _, rg in ipairs(redis.call('ZRANGE', 'hg1:runs', 0, -1)) do look(rg) end
  for _, id in ipairs(redis.call('ZRANGE', 'hg1:tasks', 0, -1)) do look('task.' .. id .. '.0') end
end

local counters = redis.call('HMGET', 'hg1:tenant:' .. tenant, 'held', 'reserved', 'running')
for i = 1, 3 do counters[i] = counters[i] or '0' end
-- Those that are paused have no place, and a purse.
for _, purse in ipairs(purses) do
  if redis.call('ZSCORE', 'hg1:away', purse[1]) then counters[3] = int(counters[3] + 1) end
end
return {EPOCH, redis.call('HGET', 'hg1:epoch', 'seq'), counters, books, complete and 1 or 0, purses}
