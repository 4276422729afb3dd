-- A run's place and hold follow its pause: paused, it gives its place up at once, and after `kept_ms` what it holds; going on, it has its place
-- again, also where that is one more than there are, and of its hold what required nodes need, as far as there is room. Absolute: repeating changes nothing.
-- ARGV: S, run, gen, kept_ms ('' = the hold stays as it is).
-- Returns away, back, lapsed, or '' where nothing has changed. Events run.away; run.lapsed, run.back with to_hold.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run, purse = get_run(), read_purse(RG)
if not run or not purse or (run.status ~= 'running' and run.status ~= 'loading') then return '' end

local function tell(kind, moved)
  emit({t = kind, tenant = run.tenant, run = RUN, gen = tonumber(GEN), to_hold = moved ~= 0 and int(moved) or nil})
end

if redis.call('SISMEMBER', 'hg1:paused', 'run:' .. RG) == 0 then
  if not take_place(RG, run.tenant) then return '' end
  local lapsed = redis.call('HDEL', 'hg1:purse:' .. RG, 'lapsed') == 1
  tell('run.back', lapsed and hold_to(RG, purse.hold, true) or 0)
  return 'back'
end
if leave_place(RG, run.tenant) then
  tell('run.away', 0)
  return 'away'
end
if ARGV[4] == '' or purse.hold == 0 or NOW - redis.call('ZSCORE', 'hg1:away', RG) < tonumber(ARGV[4]) then return '' end
local held = purse.hold
count_held(purse, -held)
put_back(RG, purse)
redis.call('HSET', 'hg1:purse:' .. RG, 'lapsed', 1)
tell('run.lapsed', -held)
return 'lapsed'
