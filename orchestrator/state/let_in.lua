-- Let waiting runs in: tenants in turns, each one's runs in their order. Also looks at every pool, so that times of backpressure are
-- noticed while nobody submits. ARGV: S, most runs to let in, backlog per slot, percent to park at, percent to open below.
-- Returns {more 0|1, run.gen..}: the runs are loading, and to be started; more: not every tenant that waits was looked at.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/line
local LOOKS_MAX = 200
local rules = read_rules(3)
for _, pool in ipairs(all_pools()) do look_at(pool, rules) end

-- Whether the first in line is gone from it: let in, or refused. Adds its name to `let_in` in the first case.
local function serve(tenant, let_in)
  local rg = redis.call('ZRANGE', 'hg1:line:' .. tenant, 0, 0)[1]
  local key = 'hg1:run:' .. rg
  local row = redis.call('HMGET', key, 'want', 'why')
  local want = cjson.decode(row[1])
  local stop = hindrance(tenant, want, rules, true)
  if not stop then
    step_out(rg, tenant)
    take_in(rg, tenant, want)
    let_in[#let_in + 1] = rg
  elseif stop.refuse then
    step_out(rg, tenant)
    refuse_run(rg, tenant, stop)
    redis.call('DEL', key)
  else
    if stop.why ~= row[2] then say_held(rg, tenant, want, stop) end
    return false
  end
  return true
end

local let_in, idle, looks = {0}, 0, 0
while idle < redis.call('ZCARD', 'hg1:waiting') do
  if #let_in > tonumber(ARGV[2]) or looks == LOOKS_MAX then
    let_in[1] = 1
    break
  end
  looks = looks + 1
  local tenant = redis.call('ZRANGE', 'hg1:waiting', 0, 0)[1]
  redis.call('ZADD', 'hg1:waiting', last_of('hg1:waiting') + 1, tenant)
  idle = serve(tenant, let_in) and 0 or idle + 1
end
return let_in
