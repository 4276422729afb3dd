-- Write down what a running Celery task uses so far, and reserve what exceeds its reservation. ARGV: S, task id, name, attempt, cats, leaving
-- (1: the task publishes itself anew, so that the next claim may come before this execution's report). Returns {ok}; {closed}: it was given up
-- meanwhile, and what it goes on to use is waste; {refused, limit, current}: the budget does not cover it, and nothing has changed.
-- @include tenancy/kernel
-- @include cost/ledger
-- @include cost/tasks
local id, name, attempt = ARGV[2], ARGV[3], ARGV[4]
local rg = task_run(id) .. '.0'
local r = read_res(rg, name, attempt)
if not r or r.state ~= 'open' then return {'closed'} end
local _, total = read_cats(ARGV[5])
local excess = total - r.amount
if excess > 0 then
  local tenant = redis.call('HGET', 'hg1:task:' .. id, 'tenant')
  local limit, free = micros(redis.call('HGET', 'hg1:tenant:' .. tenant, 'limit_day')), room(tenant)
  if excess > free then return {'refused', int(limit), int(limit - free)} end
  redis.call('HINCRBY', 'hg1:purse:' .. rg, 'reserved', int(excess))
  redis.call('HINCRBY', 'hg1:spent:' .. tenant .. ':' .. r.day, 'reserved', int(excess))
  r.amount = total
  write_res(rg, name, attempt, r)
  emit({t = 'money.extended', tenant = tenant, run = task_run(id), gen = 0, node = name, attempt = tonumber(attempt), amount = int(excess),
        day = tonumber(r.day)})
end
note_usage(rg, name, attempt, ARGV[5])
if ARGV[6] == '1' then redis.call('HSET', 'hg1:task:' .. id, 'leaving:' .. attempt, 1) end
redis.call('ZADD', 'hg1:tasks', int(NOW), id)
return {'ok'}
