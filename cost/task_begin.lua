-- Claim an ordinary Celery task and reserve its estimate. ARGV: S, task id, name, tenant, amount, claim (one for each delivery that a
-- worker accepts), inc, tag, delivery ('' if another transport delivered it), worker, patience_ms, ms that the record may be behind ('' = no limit).
-- Returns {run, attempt}, the same again for the same claim; {later}: the record is behind, ask again; or {refused, unknown|closed|suspended|other_tenant|budget, limit, current},
-- and nothing is kept then. An open execution of an earlier claim is closed as lost first, unless it is the one that retries.
-- @include tenancy/kernel
-- @include tenancy/lag
-- @include cost/ledger
-- @include cost/tasks
local id, name, tenant, amount = ARGV[2], ARGV[3], ARGV[4], micros(ARGV[5])
local key, rg = 'hg1:task:' .. id, task_run(id) .. '.0'
local known = redis.call('HMGET', key, 'tenant', 'claim', 'attempt')
if known[2] == ARGV[6] then return {'run', tonumber(known[3])} end

local function refused(reason, limit, current)
  emit({t = 'money.refused', tenant = tenant, run = task_run(id), gen = 0, node = name, amount = int(amount), reason = reason,
        limit = limit, current = current, worker = ARGV[10]})
  return {'refused', reason, limit, current}
end

local policy = redis.call('HMGET', 'hg1:tenant:' .. tenant, 'limit_day', 'status')
if not policy[1] then return {'refused', 'unknown', '', ''} end
if known[1] and known[1] ~= tenant then return {'refused', 'other_tenant', '', ''} end
if is_recorder_behind(ARGV[12]) then return {'later'} end
for _, open in ipairs(open_of(id)) do
  if redis.call('HEXISTS', key, 'leaving:' .. open[2]) == 0 then close_unreported(id, open[1], open[2], 'lost') end
end
if policy[2] == 'closed' then return refused('closed', '', '') end
-- What the fair queue gave out before the suspension runs; it gives out nothing more.
if (policy[2] == 'suspended' or is_stopped_now(tenant)) and ARGV[8] == '' then return refused('suspended', '', '') end

local purse = 'hg1:purse:' .. rg
local fresh = redis.call('EXISTS', purse) == 0
if fresh then redis.call('HSET', purse, 'tenant', tenant, 'hold', 0, 'budget', '', 'reserved', 0, 'spent', 0, 'open', 0) end
local attempt = tonumber(known[3] or attempts_before()) + 1
local covered, refusal = reserve(rg, name, attempt, amount)
if not covered then
  if fresh then redis.call('DEL', purse) end
  return refused('budget', refusal.limit, refusal.current)
end
redis.call('HSET', key, 'tenant', tenant, 'attempt', attempt, 'claim', ARGV[6], 'inc', ARGV[7], 'tag', ARGV[8], 'delivery', ARGV[9],
  'worker', ARGV[10], 'patience', ARGV[11])
redis.call('ZADD', 'hg1:tasks', int(NOW), id)
for _, each in ipairs(task_keys(id)) do redis.call('PERSIST', each) end
emit({t = 'money.reserved', tenant = tenant, run = task_run(id), gen = 0, node = name, attempt = attempt, amount = int(amount), day = DAY,
      worker = ARGV[10]})
return {'run', attempt}
