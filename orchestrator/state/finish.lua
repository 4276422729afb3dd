-- The end of an execution: outcome, result, usage; joins are counted down and what is ready is named.
-- ARGV: S, run, gen, node, attempt (0 = the one that inc holds), inc, outcome (succeeded, failed, timed_out; skipped: an optional
--       node whose parent has no result for it), result, error JSON,
--       (`cancelled` takes the place of any of them where the node was cancelled meanwhile),
--       cats (usage, `llm=30000,..`), delay_ms (before another attempt; -1 = no other attempt), then, for the record: price version,
--       lines (usage by unit, JSON; '' = not known).
-- Returns {'done', unwritten 0|1|2 (as `cascade`), due nodes..}, {'stopped', ..} likewise where the node was cancelled, {'retry', delay_ms}
-- or {'fenced'}. Repeating it answers the same.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local node, attempt, inc, outcome, result, fault = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local delay = tonumber(ARGV[11])
local lines = (ARGV[13] or '') ~= '' and ARGV[13] or nil
local price_version = lines and ARGV[12] or nil
read_cats(ARGV[10])

local run = get_run()
local state = run and state_of(node)
if not state then return {'fenced'} end
local attempts = 'hg1:attempt:' .. RG
local lease = read_lease(node)
if lease and attempt == '0' and lease.inc == inc then attempt = lease.attempt end

if not (lease and lease.live and lease.attempt == attempt and lease.inc == inc) then
  if redis.call('HGET', attempts, node .. ':done') ~= attempt or not live(inc) then return {'fenced'} end
  if state == 'due' then
    return {'retry', math.max(0, tonumber(redis.call('HGET', 'hg1:notbefore:' .. RG, node) or 0) - NOW)}
  elseif UNFINISHED[state] then
    return {'fenced'}
  end
  local reply = {'done', unwritten(run)}
  for _, child in ipairs(due_children(node)) do reply[#reply + 1] = child end
  return reply
end

local ctl = ctl_of(node)
if outcome == 'skipped' and ctl.required then outcome = 'failed' end
local told = redis.call('HGET', 'hg1:stop:' .. RG, node)
if told then outcome, fault = 'cancelled', told end
redis.call('HSET', attempts, node .. ':done', attempt, node .. ':prices', ARGV[12] or '')
note_usage(RG, node, attempt, ARGV[10])
progress()

if outcome == 'failed' or outcome == 'timed_out' then
  redis.call('HSET', 'hg1:fault:' .. RG, node, fault)
  local fails = redis.call('HINCRBY', attempts, node .. ':fails', 1)
  if fails < ctl.attempts and delay >= 0 and run.status == 'running' and not run.stopped and not terminated(run, node) then
    redis.call('HDEL', 'hg1:lease:' .. RG, node)
    count_needed(need_of(node, ctl))
    make_due(node, NOW + delay)
    redis.call('HSET', 'hg1:notbefore:' .. RG, node, int(NOW + delay))
    node_event('node.retry', run.tenant, node, {attempt = tonumber(attempt), outcome = outcome, error = fault, delay_ms = delay,
        lines = lines, price_version = price_version})
    release(inc, lease.tag, delay, true)
    return {'retry', delay}
  end
end

local fields = {attempt = tonumber(attempt), lines = lines, price_version = price_version}
if outcome == 'succeeded' then
  redis.call('HSET', 'hg1:result:' .. RG, node, result)
  fields.result = result
elseif outcome == 'skipped' or told then
  fields.reason = fault
else
  fields.error = fault
end
set_outcome(run, node, outcome, fields, ctl)
propagate(run, node, how_of(outcome, ctl), ctl)
local more = cascade(run, 200)
announce_due(run.tenant)
maybe_end(run)
local reply = {told and 'stopped' or 'done', more}
for _, child in ipairs(due_now) do reply[#reply + 1] = child end
return reply
