-- A worker was given a node whose task it does not have. It hands the message back, to be delivered again a little later; where for
-- patience_ms no worker of the pool has had the task, the node fails. ARGV: S, run, gen, node, inc, tag, delivery, task, patience_ms.
-- Returns {'gone'}: it holds nothing; {'back', delay_ms}; {'early'}: the node does not wait for a worker, its message is dropped;
-- {'failed', what is unwritten (as of `cascade`), reason, due nodes..}.
-- hg1:attempt:{rg} has node:lacks, since when (ms) no worker of the pool has had the task.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local BACK_MS, BACK_MS_MAX, NAMED_MAX = 500, 5000, 5
local node, inc, tag, delivery, task, patience = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
if not holds(inc, tag, delivery) then return {'gone'} end

local function forget_message()
  local m = unhold(inc, tag)
  if m then drop(tag, m) end
end

local run = get_run()
if not run or run.status ~= 'running' or run.stopped or state_of(node) ~= 'due' then
  forget_message()
  return {'early'}
end

-- Whether a live worker of the pool has the task; else who is there instead.
local function look_for_worker(pool)
  local there = {}
  local incs = redis.call('HKEYS', 'hg1:slots:' .. pool)
  table.sort(incs)
  for _, other in ipairs(incs) do
    local info = cjson.decode(redis.call('HGET', 'hg1:worker:' .. other, 'info') or '{}')
    for _, name in ipairs(info.tasks or {}) do
      if name == task then return true end
    end
    there[#there + 1] = (info.name or other) .. (info.version and ' (' .. info.version .. ')' or '')
  end
  return false, there
end

local attempts, pool = 'hg1:attempt:' .. RG, read_meta(tag).q
local served, there = look_for_worker(pool)
if served then
  redis.call('HDEL', attempts, node .. ':lacks')
  release(inc, tag, BACK_MS)
  return {'back', BACK_MS}
end
redis.call('HSETNX', attempts, node .. ':lacks', int(NOW))
local waited = NOW - redis.call('HGET', attempts, node .. ':lacks')
if waited < patience then
  local delay = math.max(BACK_MS, math.min(BACK_MS_MAX, math.floor(waited / 4), patience - waited))
  release(inc, tag, delay)
  return {'back', delay}
end
local more = #there > NAMED_MAX and ' and ' .. #there - NAMED_MAX .. ' more' or ''
local reason = 'for ' .. math.floor(waited / 1000) .. ' s no worker of the pool "' .. pool .. '" has had the task "' .. task .. '"; there are '
  .. table.concat(there, ', ', 1, math.min(#there, NAMED_MAX)) .. more
local ctl = ctl_of(node)
forget_message()
redis.call('HSET', 'hg1:fault:' .. RG, node, cjson.encode({type = 'unserved', message = reason}))
set_outcome(run, node, 'failed', {attempt = tonumber(redis.call('HGET', attempts, node) or 0), reason = reason}, ctl)
propagate(run, node, how_of('failed', ctl), ctl)
local left = cascade(run, 200)
announce_due(run.tenant)
maybe_end(run)
local reply = {'failed', left, reason}
for _, child in ipairs(due_now) do reply[#reply + 1] = child end
return reply
