-- Backpressure: whether runs may start in a pool. `rules` = {backlog = messages per slot, park, release = percent of capacity}.
--
-- hg1:pressure:{pool}  state open or parked, since, parked (transitions into it), parked_ms (time in it, up to its last end)
-- hg1:loading          pool -> roots of runs that were admitted and are not launched yet, so that a burst sees its own load
-- hg1:loading:{pool}   tenant -> those of its runs
-- hg1:load, hg1:running, hg1:slots:{pool} are the transport's
local function read_rules(first)
  return {backlog = tonumber(ARGV[first]), park = tonumber(ARGV[first + 1]), release = tonumber(ARGV[first + 2])}
end

local function capacity_of(pool, rules)
  local slots = 0
  for _, n in ipairs(redis.call('HVALS', 'hg1:slots:' .. pool)) do slots = slots + n end
  return slots * rules.backlog
end

local function load_of(pool)
  local load = 0
  for _, key in ipairs({'hg1:load', 'hg1:running', 'hg1:loading'}) do load = load + (redis.call('HGET', key, pool) or 0) end
  return load
end

-- Look at a pool, and write down when it was parked or opened. Returns nil where runs may start, else why not, capacity, load.
local function look_at(pool, rules)
  local key = 'hg1:pressure:' .. pool
  local row = redis.call('HMGET', key, 'state', 'since')
  local capacity, load = capacity_of(pool, rules), load_of(pool)
  local was = row[1] == 'parked'
  local parked = capacity == 0 or load * 100 >= (was and rules.release or rules.park) * capacity
  if parked ~= was then
    local state = parked and 'parked' or 'open'
    redis.call('HSET', key, 'state', state, 'since', int(NOW))
    local times = redis.call('HINCRBY', key, 'parked', parked and 1 or 0)
    local ms = redis.call('HINCRBY', key, 'parked_ms', parked and 0 or int(NOW - row[2]))
    emit({t = 'pressure.changed', pool = pool, state = state, load = load, capacity = capacity, parked = times, parked_ms = ms})
  end
  if not parked then return nil end
  return capacity == 0 and 'worker' or 'backpressure', capacity, load
end

-- Whether a tenant has less than its even share of what a parked pool is given: the flood is not its own, and does not hold it back.
local function is_below_share(tenant, pool, capacity, rules)
  local own = redis.call('SCARD', 'hg1:held:tenant:' .. tenant) + (redis.call('HGET', 'hg1:loading:' .. pool, tenant) or 0)
  for _, priority in ipairs(PRIORITIES) do own = own + (redis.call('HGET', 'hg1:depth:' .. pool, tenant .. '|' .. priority) or 0) end
  local tenants = redis.call('ZCARD', 'hg1:ready:' .. pool)
  if not redis.call('ZSCORE', 'hg1:ready:' .. pool, tenant) then tenants = tenants + 1 end
  return own * tenants * 100 < rules.release * capacity
end

local function count_loading(tenant, pool, n)
  for key, field in pairs({['hg1:loading'] = pool, ['hg1:loading:' .. pool] = tenant}) do
    if redis.call('HINCRBY', key, field, n) <= 0 then redis.call('HDEL', key, field) end
  end
end

-- The roots of a run are launched, or never will be.
local function unload(rg)
  local row = redis.call('HMGET', 'hg1:run:' .. rg, 'roots', 'tenant')
  if not row[1] then return end
  for pool, n in pairs(cjson.decode(row[1])) do count_loading(row[2], pool, -n) end
  redis.call('HDEL', 'hg1:run:' .. rg, 'roots')
end

local function all_pools()
  local pools = redis.call('SMEMBERS', 'hg1:pools')
  table.sort(pools)
  return pools
end

-- Whether a run that waits may have become able to start: 1 when a run ended, or a parked pool is open again, and somebody waits.
local function somebody_may_start(ended, rules)
  if redis.call('EXISTS', 'hg1:waiting') == 0 then return 0 end
  for _, pool in ipairs(all_pools()) do
    if redis.call('HGET', 'hg1:pressure:' .. pool, 'state') == 'parked' and not look_at(pool, rules) then ended = true end
  end
  return ended and 1 or 0
end
