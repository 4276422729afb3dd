-- Executions of ordinary Celery tasks: run task.{task id}, generation 0, node = the task's name. Their purse holds nothing.
--
-- hg1:task:{task id}  tenant, attempt (claims so far), claim (whose reply may be lost), inc, tag ('' where another transport delivers), delivery ('' where it is acknowledged before it runs),
--                     worker, prices (the table by which what is noted was priced), patience (ms without a sign after which it is lost)
-- hg1:tasks           zset task id -> last sign of life, while an execution is open
--
-- Attempts of a task are numbered 1000 h + 1, 1000 h + 2, ..: h is the hour (since 2026-01-01 UTC) in which its keys were made. The keys go after
-- the task's end, and its message may still come (a countdown of a day, a broker that delivers twice): by then it is another hour, and no number is
-- given twice.
local TASK_KEPT_S = 3600
local ATTEMPTS_PER_HOUR, HOUR_MS, HOURS_FROM_MS = 1000, 3600000, 1767225600000

local function task_run(id)
  return 'task.' .. id
end

local function task_keys(id)
  local rg = task_run(id) .. '.0'
  return {'hg1:task:' .. id, 'hg1:purse:' .. rg, 'hg1:res:' .. rg}
end

-- How many attempts of a task that nobody remembers may have been handed out; after a rebuild, also in the tail that was lost.
local function attempts_before()
  local hours = math.max(0, math.floor((NOW - HOURS_FROM_MS) / HOUR_MS))
  return math.max(ATTEMPTS_PER_HOUR * hours, tonumber(redis.call('HGET', 'hg1:rebuilt', 'attempts') or 0))
end

-- Nothing of the task is open any more: its keys stay for those who ask again, and then go; not before what comes after has a higher number.
local function rest(id)
  if redis.call('SCARD', 'hg1:open:' .. task_run(id) .. '.0') > 0 then return end
  redis.call('ZREM', 'hg1:tasks', id)
  local last = tonumber(redis.call('HGET', 'hg1:task:' .. id, 'attempt') or 0)
  local passed_ms = HOURS_FROM_MS + math.ceil(last / ATTEMPTS_PER_HOUR) * HOUR_MS
  local kept_s = math.max(TASK_KEPT_S, math.ceil((passed_ms - NOW) / 1000))
  for _, key in ipairs(task_keys(id)) do redis.call('EXPIRE', key, int(kept_s)) end
end

-- An execution that said nothing of its end: it is charged what it had noted; one that noted nothing is void.
-- Returns settled, void, same or unknown.
local function close_unreported(id, node, attempt, by)
  local rg = task_run(id) .. '.0'
  local r = read_res(rg, node, attempt)
  if not r then return 'unknown' end
  if r.state ~= 'open' then return 'same' end
  local answer
  if r.cats == '' then
    answer = void(task_run(id), '0', node, attempt, by, false)
  else
    answer = settle(task_run(id), '0', node, attempt, r.cats, by, false, redis.call('HGET', 'hg1:task:' .. id, 'prices') or '')
    redis.call('HSET', 'hg1:task:' .. id, 'unreported:' .. attempt, 1)
  end
  rest(id)
  return answer
end

-- Each open execution of a task: {node, attempt}.
local function open_of(id)
  local found = {}
  for _, name in ipairs(redis.call('SMEMBERS', 'hg1:open:' .. task_run(id) .. '.0')) do
    local node, attempt = name:match('^(.*):(%d+)$')
    found[#found + 1] = {node, attempt}
  end
  return found
end
