-- Write down what a running Celery task uses so far, and reserve what exceeds its reservation. ARGV: S, task id, name, attempt, cats, leaving
-- (1: the task publishes itself anew, so that the next claim may come before this execution's report), price version. Returns {ok}; {closed}: it was given up
-- meanwhile, and what it goes on to use is waste; {refused, limit, current}: the budget does not cover it, and nothing has changed.
-- @include tenancy/kernel
-- @include cost/ledger
-- @include cost/tasks
local id, name, attempt = ARGV[2], ARGV[3], ARGV[4]
local rg = task_run(id) .. '.0'
local answer, refusal = extend(rg, name, attempt, ARGV[5])
if answer == 'refused' then return {answer, refusal.limit, refusal.current} end
if answer ~= 'ok' then return {'closed'} end
if (ARGV[7] or '') ~= '' then redis.call('HSET', 'hg1:task:' .. id, 'prices', ARGV[7]) end
if ARGV[6] == '1' then redis.call('HSET', 'hg1:task:' .. id, 'leaving:' .. attempt, 1) end
redis.call('ZADD', 'hg1:tasks', int(NOW), id)
return {'ok'}
