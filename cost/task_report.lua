-- Charge an ordinary Celery task what its own process says that it used. ARGV: S, task id, name, attempt, cats, by, tenant, price version,
-- lines (usage by unit, JSON).
-- Returns settled, same, conflict, waste or unknown. An execution that was closed without a report, and reports after all, is charged the
-- rest as waste; so is one that nobody knows, because its claim was in the tail that a rebuild lost.
-- @include tenancy/kernel
-- @include cost/ledger
-- @include cost/tasks
local id, name, attempt, cats, by = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local run, rg, flag = task_run(id), task_run(id) .. '.0', 'unreported:' .. ARGV[4]
if not read_res(rg, name, attempt) and tonumber(attempt) <= tonumber(redis.call('HGET', 'hg1:rebuilt', 'attempts') or 0) then
  local purse = 'hg1:purse:' .. rg
  if redis.call('EXISTS', purse) == 0 then
    redis.call('HSET', purse, 'tenant', ARGV[7], 'hold', 0, 'budget', '', 'reserved', 0, 'spent', 0, 'open', 0)
  end
  if redis.call('HGET', purse, 'tenant') ~= ARGV[7] then return 'unknown' end
  write_res(rg, name, attempt, {state = 'void', amount = 0, parts = {{day = DAY, amount = 0}}, actual = '0', cats = '', since = int(NOW)})
end
local answer = settle(run, '0', name, attempt, cats, by, false, ARGV[8] or '', ARGV[9] or '')
if answer == 'settled' or answer == 'waste' then rest(id) end
if answer ~= 'conflict' or redis.call('HGET', 'hg1:task:' .. id, flag) ~= '1' then return answer end

local r = read_res(rg, name, attempt)
local charged, reported, more = read_cats(r.cats), read_cats(cats), {}
for category, amount in pairs(charged) do
  if amount > (reported[category] or 0) then return 'conflict' end
end
for category, amount in pairs(reported) do
  local rest_of = amount - (charged[category] or 0)
  if rest_of > 0 then more[#more + 1] = category .. '=' .. int(rest_of) end
end
table.sort(more)
r.state = 'void'
write_res(rg, name, attempt, r)
settle(run, '0', name, attempt, table.concat(more, ','), by, false, ARGV[8] or '', ARGV[9] or '')
local _, total, written = read_cats(cats)
r = read_res(rg, name, attempt)
r.actual, r.cats = int(total), written
write_res(rg, name, attempt, r)
redis.call('HDEL', 'hg1:task:' .. id, flag)
return 'waste'
