-- Correct what a tenant was charged on a day, once for each id. ARGV: S, tenant, id, amount (micros, `-12` takes back), category, day (since
-- 1970-01-01 UTC), by, reason, price version ('' = none).
-- Returns {answer, micros}: done or same, what the day's category is now; conflict (the id has another amount, category or day); refused, what
-- the day's category has, of which more was to be taken back; closed, the first day that is still open; unknown (no such tenant).
--
-- hg1:adjusted:{tenant}:{yyyymm}  id -> amount|category|day, of the month of the day; as long as that month and the next, and a while
--
-- The books of this month and of the one before are open: these are what a rebuild writes anew.
-- @include tenancy/kernel
-- @include cost/ledger
local KEPT_S = 100 * 86400
local tenant, id, category, day = ARGV[2], ARGV[3], ARGV[5], micros(ARGV[6])
local sign, digits = ARGV[4]:match('^(-?)(%d+)$')
if not digits then error('AMOUNT ' .. ARGV[4]:sub(1, 40) .. ' is not a whole number of micros, with or without -') end
local amount = micros(digits)
if amount == 0 then error('AMOUNT an adjustment of 0 changes nothing') end
if sign == '-' then amount = -amount end
if not CATEGORIES[category] then error('AMOUNT ' .. category:sub(1, 40) .. ' is no category') end
if id == '' or #id > 1000 then error('AMOUNT the id of an adjustment has 1 to 1000 bytes') end

if redis.call('HEXISTS', 'hg1:tenant:' .. tenant, 'limit_day') == 0 then return {'unknown', '0'} end
local month, first = month_of(day), DAY
for _ = 1, 2 do
  local _, _, of_month = date_of(first)
  first = first - of_month
end
first = first + 1
if day < first or day > DAY then return {'closed', int(first)} end

local content = int(amount) .. '|' .. category .. '|' .. int(day)
local daily, monthly = 'hg1:spent:' .. tenant .. ':' .. int(day), 'hg1:spent:' .. tenant .. ':m' .. month
local charged = tonumber(redis.call('HGET', daily, 'c:' .. category) or 0)
for _, open in ipairs({month_of(first), MONTH}) do
  local known = redis.call('HGET', 'hg1:adjusted:' .. tenant .. ':' .. open, id)
  if known then return {known == content and 'same' or 'conflict', int(charged)} end
end
if charged + amount < 0 then return {'refused', int(charged)} end
if amount > 0 and tonumber(redis.call('HGET', monthly, 'settled') or 0) + amount > MICROS_MAX then
  error('AMOUNT the sum of the month is not a whole number of micros')
end

local adjusted = 'hg1:adjusted:' .. tenant .. ':' .. month
redis.call('HSET', adjusted, id, content)
redis.call('EXPIRE', adjusted, KEPT_S)
for _, book in ipairs({daily, monthly}) do
  redis.call('HINCRBY', book, 'settled', int(amount))
  redis.call('HINCRBY', book, 'c:' .. category, int(amount))
end
emit({t = 'money.adjusted', tenant = tenant, id = id, amount = int(amount), cat = category, day = int(day), by = ARGV[7], cause = ARGV[8],
      price_version = ARGV[9] ~= '' and ARGV[9] or nil})
take_levels(tenant, 'adjust.' .. id)
return {'done', int(charged + amount)}
