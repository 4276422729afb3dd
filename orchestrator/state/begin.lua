-- The gate: claim a node for the execution that a delivered message asks for. The table of rows is in docs/protocol.md.
-- ARGV: S, run, gen, node, inc, tag, delivery, worker name, ms that the record may be behind ('' = no limit), ms that a node which the
-- money does not cover waits for the agent's decision ('' = none); then, where settlements of the run ride along: backlog per slot, percent
-- to park at, percent to open below, and of each of them node, attempt, cats, by, price version, lines, as `settle` has them.
-- With settlements it returns {{their answers}, row}, else the row alone. A row is one of gone, none, held, stopped, early; ended, outcome,
-- error JSON or '', {due children}; later, wait_ms, and 1 where the agent is to be called, because the money did not cover the node for the
-- first time; poison, refused or stopped (where the node alone was cancelled), outcome, reason, {due nodes}; run, attempt, spec, verdict, fails,
-- reserved micros; then, of a node that grows, expand or gather, and what says what it became, or ''.
-- @include tenancy/kernel
-- @include tenancy/lag
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
-- @include orchestrator/state/charge
local SHORT_MS, BEHIND_MS = 1000, 2000
local node, inc, tag, delivery, worker = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local function forget_message()
  local m = unhold(inc, tag)
  if m then drop(tag, m) end
end

local run, answers = get_run(), nil
if #ARGV > 13 then
  local rules = read_rules(11)
  answers = {}
  for i = 14, #ARGV, 6 do
    answers[#answers + 1] = charge(run, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], rules)
  end
end

local function claim()
  if not holds(inc, tag, delivery) then return {'gone'} end
  local state = run and state_of(node)
  if not state then return {'none'} end
  if not UNFINISHED[state] then
    return {'ended', state, redis.call('HGET', 'hg1:fault:' .. RG, node) or '', due_children(node)}
  end

  local lease = read_lease(node)
  local mine = lease and lease.inc == inc and lease.tag == tag and lease.delivery == delivery
  if lease and lease.live and not mine then
    node_event('node.duplicate', run.tenant, node, {attempt = tonumber(lease.attempt), inc = inc, tag = tag})
    return {'held'}
  end

  local ctl = ctl_of(node)
  local attempts = 'hg1:attempt:' .. RG
  local function give_up(outcome, reason, row)
    local fields = {reason = reason, decision = run.terminated or nil}
    if row ~= 'stopped' then
      redis.call('HSET', 'hg1:fault:' .. RG, node, cjson.encode({type = row, message = reason}))
      fields.attempt = tonumber(redis.call('HGET', attempts, node) or 0)
    end
    set_outcome(run, node, outcome, fields, ctl)
    propagate(run, node, how_of(outcome, ctl), ctl)
    cascade(run, 200)
    announce_due(run.tenant)
    maybe_end(run)
    return {row, outcome, reason, due_now}
  end

  if not mine then
    if run.status == 'cancelling' or run.stopped then
      if lease then close_lost(run, node, lease) end
      local reason = run.stopped or redis.call('HGET', 'hg1:run:' .. RG, 'reason') or 'the run was cancelled'
      set_outcome(run, node, 'cancelled', {reason = reason}, ctl)
      maybe_end(run)
      return {'stopped'}
    end
    local told = redis.call('HGET', 'hg1:stop:' .. RG, node)
    if told then
      if lease then close_lost(run, node, lease) end
      return give_up('cancelled', told, 'stopped')
    end
    local over = terminated(run, node)
    if over then
      if lease then close_lost(run, node, lease) end
      return give_up('cancelled', over, 'stopped')
    end
    if run.status ~= 'running' or state == 'pending' then
      forget_message()
      return {'early'}
    end
    if is_fenced(run.tenant) then
      release(inc, tag, SHORT_MS)
      return {'later', SHORT_MS}
    end
    local notbefore = tonumber(redis.call('HGET', 'hg1:notbefore:' .. RG, node) or 0)
    if NOW < notbefore then
      release(inc, tag, notbefore - NOW)
      return {'later', notbefore - NOW}
    end
    if is_stopped_now(run.tenant) or is_paused(run.tenant) then
      release(inc, tag, 0)
      return {'later', 0}
    end
    -- What would be set aside now is charged to nobody if Redis is lost before it is on record.
    if is_recorder_behind(ARGV[9]) then
      release(inc, tag, BEHIND_MS)
      return {'later', BEHIND_MS}
    end
    if lease then close_lost(run, node, lease) end
  end
  local claims = redis.call('HMGET', attempts, node, node .. ':lost', node .. ':fails', node .. ':refused')
  if not mine then
    if tonumber(claims[2] or 0) >= 3 then
      local m = unhold(inc, tag)
      if m then bury_letter(tag, m, 'three workers died while they ran it') end
      return give_up('failed', 'three workers died while they ran it', 'poison')
    end
  end

  local verdict = redis.call('HGET', 'hg1:verdict:' .. RG, node) or ''
  local fails = tonumber(claims[3] or 0)
  local spec = redis.call('HGET', 'hg1:spec:' .. RG, node)
  -- A node that grows makes its nodes, or gathers what they returned: that costs nothing. What it becomes may be known from an earlier generation.
  local grows = (ctl.map or ctl.source) and 'expand'
  if ctl.gathers then
    local made = tonumber(redis.call('HGET', 'hg1:wait:' .. RG, node .. ':made'))
    grows = made < ctl.of and 'expand' or 'gather'
  end
  local function run_row(claimed, reserved)
    local row = {'run', tonumber(claimed), spec, verdict, fails, int(reserved)}
    if grows then row[7], row[8] = grows, ctl.source or '' end
    return row
  end
  if mine then return run_row(lease.attempt, read_res(RG, node, lease.attempt).amount) end

  local attempt, need = int(tonumber(claims[1] or 0) + 1), need_of(node, ctl, claims[1])
  local amount = grows and 0 or micros(ctl.amounts[verdict] or ctl.amounts[''])
  local covered, taken = reserve(RG, node, attempt, amount, need)
  if not covered then
    local purse = read_purse(RG)
    if purse.reserved > 0 and amount <= purse.hold - purse.needed + need + purse.reserved + room(purse.tenant) then
      -- What runs now may give enough back: no outcome before that is known.
      redis.call('HSET', 'hg1:notbefore:' .. RG, node, int(NOW + SHORT_MS))
      release(inc, tag, SHORT_MS)
      return {'later', SHORT_MS}
    end
    local patience = tonumber(ARGV[10] or '') or 0
    if patience > 0 then
      -- A refusal leaves the node due, for the agent to decide; it is the outcome once nobody has for so long.
      local first = redis.call('HSETNX', attempts, node .. ':refused', int(NOW))
      if NOW - redis.call('HGET', attempts, node .. ':refused') < patience then
        redis.call('HSET', 'hg1:notbefore:' .. RG, node, int(NOW + SHORT_MS))
        release(inc, tag, SHORT_MS)
        return {'later', SHORT_MS, first}
      end
    end
    return give_up(ctl.required and 'failed' or 'skipped', 'the budget does not cover its ' .. int(amount) .. ' micros', 'refused')
  end
  redis.call('HSET', attempts, node, attempt)
  if claims[4] then redis.call('HDEL', attempts, node .. ':refused') end
  redis.call('HSET', 'hg1:state:' .. RG, node, 'running')
  redis.call('ZREM', 'hg1:due:' .. RG, node)
  redis.call('HSET', 'hg1:lease:' .. RG, node, attempt .. '|' .. inc .. '|' .. tag .. '|' .. delivery .. '|' .. int(NOW))
  node_event('node.began', run.tenant, node, {attempt = tonumber(attempt), inc = inc, worker = worker, amount = int(amount),
    to_hold = int(-taken), day = DAY, verdict = verdict})
  progress()
  return run_row(attempt, amount)
end

local row = claim()
return answers and {answers, row} or row
