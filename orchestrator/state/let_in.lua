-- Let waiting runs in: tenants in turns, each one's runs in their order; of those beside a line the first 50. Also looks at every pool, so that times of backpressure are
-- noticed while nobody submits. ARGV: S, most runs to let in, backlog per slot, percent to park at, percent to open below.
-- Returns {more 0|1, run.gen..}: the runs are loading, and to be started; more: not every tenant that waits was looked at.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/line
local LOOKS_MAX, BESIDE_MAX = 200, 50
local rules = read_rules(3)
for _, pool in ipairs(all_pools()) do look_at(pool, rules) end

-- One that stood beside the line comes in it where it would have been.
local function is_behind(rg, tenant)
  local first = redis.call('ZRANGE', 'hg1:line:' .. tenant, 0, 0, 'WITHSCORES')
  local order = redis.call('ZSCORE', 'hg1:unserved:' .. tenant, rg)
  return first[1] and order and tonumber(first[2]) < tonumber(order)
end

-- Whether a run does not stand in the way any more: let in, refused, or beside the line. Adds its name to `let_in` in the first case.
local function serve(rg, tenant, let_in)
  local key = 'hg1:run:' .. rg
  local row = redis.call('HMGET', key, 'want', 'why')
  local want = cjson.decode(row[1])
  local stop, short = hindrance(tenant, want, rules, true)
  if not stop and is_behind(rg, tenant) then stop = {why = 'runs', limit = '', current = ''} end
  if not stop then
    step_out(rg, tenant)
    take_in(rg, tenant, want, short)
    let_in[#let_in + 1] = rg
    return true
  elseif stop.refuse then
    step_out(rg, tenant)
    refuse_run(rg, tenant, stop)
    redis.call('DEL', key, 'hg1:timeout:' .. rg)
    redis.call('HDEL', 'hg1:ranks', rg)
    return true
  end
  if stop.why == row[2] then return false end
  say_held(rg, tenant, want, stop)
  return stop.why == 'worker'
end

local let_in, idle, looks = {0}, 0, 0
while idle < redis.call('ZCARD', 'hg1:waiting') do
  if #let_in > tonumber(ARGV[2]) or looks >= LOOKS_MAX then
    let_in[1] = 1
    break
  end
  local tenant = redis.call('ZRANGE', 'hg1:waiting', 0, 0)[1]
  redis.call('ZADD', 'hg1:waiting', last_of('hg1:waiting') + 1, tenant)
  local moved = false
  for _, rg in ipairs(redis.call('ZRANGE', 'hg1:unserved:' .. tenant, 0, BESIDE_MAX - 1)) do
    looks = looks + 1
    moved = serve(rg, tenant, let_in)
    if moved then break end
  end
  local head = not moved and redis.call('ZRANGE', 'hg1:line:' .. tenant, 0, 0)[1]
  looks = looks + 1
  if head then moved = serve(head, tenant, let_in) end
  idle = moved and 0 or idle + 1
end
return let_in
