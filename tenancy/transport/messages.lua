-- Messages, queues, caps and incarnations; the page docs/protocol.md says what each key holds.
--
-- hg1:msg        tag -> payload
-- hg1:meta       tag -> JSON {t tenant, p priority, q pool, c expected ms, n deliveries, o once-id, r run, f task, l limits, s since, w place, k entry,
--                u the list it was let out of last, h the limits it takes a place of while it is held, gone 1 when it was removed while
--                held, deaths}
--                place: q in line, h held, d delayed, x dead letter, or the name of the list where it is parked
-- hg1:once       once-id -> tag                     hg1:delayed    zset tag -> due ms
-- hg1:queue:{pool}:{tenant}:{priority}              list of entries tag:k, the next one at the right end; an entry counts while
--                                                   its message is in line and k is its latest
-- hg1:depth:{pool}   tenant|priority -> messages in line             hg1:work:{pool}    tenant -> expected ms of what it has in line
-- hg1:ready:{pool}, hg1:clock:{pool}, hg1:vft:{pool}     start-time fair queueing (Goyal, Vin, Cheng 1996), in ms / weight
-- hg1:age:{pool}:{tenant}   priority -> starts of the tenant since this level's last
-- hg1:blocked               tenants that are paused, suspended, stopped or at their cap: in no pool's ready
-- hg1:stopped               zset tenant -> ms until which nothing of it starts
-- hg1:halted                those of them whose running executions are ended, too
-- hg1:load                  {pool} -> messages in line whose tenant is not blocked, {pool}|ms -> their expected ms
-- hg1:running               {pool} -> messages held
-- hg1:parked:by, hg1:delayed:by     tenant -> messages parked, delayed
-- hg1:served:{minute}       tenant -> slot-ms that it received in that minute
-- hg1:held:{scope}          set of tags held; scope tenant:{t}, run:{r}, limit:{key}
-- hg1:parked:{list}         tags that wait for a run's pause to end, a place of a run, a place of a limit
-- hg1:paused                set of platform, tenant:{t}, run:{r}       hg1:caps   run -> max_parallel
-- hg1:ranks                 run -> priority of its messages, where it was changed
-- hg1:timeout:{run}         once-id, or * for all -> s to which the time limit of its messages was raised
-- hg1:out                   list|pool -> tag of that pool that was let out of the list last and has not gone yet
-- hg1:expected              tenant|task -> ms that it took lately (moving average, 1/8)     hg1:declared   task -> ms that it should take
-- hg1:dead                  scope -> tag number up to which messages of the scope are removed
-- hg1:letters               tag -> JSON {reason, at, deaths} of dead letters
-- hg1:pools                 set of pools that ever had a message
-- hg1:bell:{pool}, hg1:sleepers:{pool}     doorbell tokens, at most one for each sleeper
-- hg1:incarnations zset, hg1:unacked:{inc} tag -> delivery|popped ms|charged ms|served until, hg1:dying list, hg1:worker:{inc}, hg1:serves, hg1:slots:{pool}
-- @include tenancy/transport/limits
local PRIORITIES = {1, 3, 5, 7, 9}
local PATIENCE = 9
local DEATHS_MAX = 3
local EXPECTED_MS = 1000
local SERVED_KEPT_S = 7200
local LOOK_AGAIN_MAX = 20

local function live(inc)
  return redis.call('ZSCORE', 'hg1:incarnations', inc)
end

-- What an incarnation holds of a tag: delivery, popped, charged, served; `row` where the caller has read it.
local function read_held(inc, tag, row)
  row = row or redis.call('HGET', 'hg1:unacked:' .. inc, tag)
  if not row then return nil end
  return row:match('^(%d+)|(%d+)|(%d+)|(%d+)$')
end

local function holds(inc, tag, delivery)
  return live(inc) and read_held(inc, tag) == delivery
end

local function ring(pool)
  local sleepers = redis.call('ZCOUNT', 'hg1:sleepers:' .. pool, NOW, '+inf')
  if sleepers > 0 and redis.call('LLEN', 'hg1:bell:' .. pool) < sleepers then
    redis.call('LPUSH', 'hg1:bell:' .. pool, '1')
  end
end

local function number_of(tag)
  return tonumber(tag:sub(2))
end

local function read_meta(tag)
  local meta = redis.call('HGET', 'hg1:meta', tag)
  return meta and cjson.decode(meta)
end

local function write_meta(tag, m)
  redis.call('HSET', 'hg1:meta', tag, cjson.encode(m))
end

local function queue_of(m)
  return 'hg1:queue:' .. m.q .. ':' .. m.t .. ':' .. m.p
end

-- Whether the tenant or the run of a message was removed after its tag was made.
local function is_removed(tag, m)
  local number = number_of(tag)
  for _, upto in ipairs(redis.call('HMGET', 'hg1:dead', 'tenant:' .. m.t, 'run:' .. m.r)) do
    if upto and number <= tonumber(upto) then return true end
  end
  return false
end

-- What a tenant's policy says to the queue: weight, cap (nil none), whether it is suspended.
local function rule_of(tenant)
  local row = redis.call('HMGET', 'hg1:tenant:' .. tenant, 'weight', 'max_running_nodes', 'status')
  return {weight = tonumber(row[1]) or 1, cap = row[2] and tonumber(row[2]), suspended = row[3] == 'suspended'}
end

local function at_cap(tenant, rule)
  return rule.cap and redis.call('SCARD', 'hg1:held:tenant:' .. tenant) >= rule.cap
end

local function is_stopped(tenant)
  return redis.call('ZSCORE', 'hg1:stopped', tenant)
end

-- As a gate asks that comes after the pop: nobody may have popped since it ended.
local function is_stopped_now(tenant)
  return tonumber(is_stopped(tenant) or 0) > NOW
end

-- `stops`, `pauses`: false where the caller knows that no tenant is stopped, that nothing is paused.
local function is_blocked(tenant, rule, stops, pauses)
  if rule.suspended or (stops ~= false and is_stopped(tenant)) then return true end
  if pauses ~= false and redis.call('SISMEMBER', 'hg1:paused', 'tenant:' .. tenant) == 1 then return true end
  return at_cap(tenant, rule)
end

local function make_ready(pool, tenant)
  if redis.call('ZSCORE', 'hg1:ready:' .. pool, tenant) then return end
  local clock = tonumber(redis.call('GET', 'hg1:clock:' .. pool) or 0)
  local finish = tonumber(redis.call('HGET', 'hg1:vft:' .. pool, tenant) or 0)
  redis.call('ZADD', 'hg1:ready:' .. pool, int(math.max(clock, finish)), tenant)
end

local function add_load(pool, count, ms)
  redis.call('HINCRBY', 'hg1:load', pool, int(count))
  redis.call('HINCRBY', 'hg1:load', pool .. '|ms', int(ms))
end

-- What a tenant has in line in a pool: messages, and their expected ms.
local function waiting_of(pool, tenant)
  local fields, count = {}, 0
  for i, priority in ipairs(PRIORITIES) do fields[i] = tenant .. '|' .. priority end
  for _, depth in ipairs(redis.call('HMGET', 'hg1:depth:' .. pool, unpack(fields))) do count = count + (tonumber(depth) or 0) end
  return count, tonumber(redis.call('HGET', 'hg1:work:' .. pool, tenant) or 0)
end

-- Nothing of the tenant is popped from here on, in any pool.
local function block(tenant)
  if redis.call('SADD', 'hg1:blocked', tenant) == 0 then return end
  for _, pool in ipairs(redis.call('SMEMBERS', 'hg1:pools')) do
    redis.call('ZREM', 'hg1:ready:' .. pool, tenant)
    local count, ms = waiting_of(pool, tenant)
    if count > 0 then add_load(pool, -count, -ms) end
  end
end

-- A tenant that was blocked goes on, if nothing else stands in its way.
local function unblock(tenant)
  if redis.call('SISMEMBER', 'hg1:blocked', tenant) == 0 or is_blocked(tenant, rule_of(tenant)) then return end
  redis.call('SREM', 'hg1:blocked', tenant)
  for _, pool in ipairs(redis.call('SMEMBERS', 'hg1:pools')) do
    local count, ms = waiting_of(pool, tenant)
    if count > 0 then
      add_load(pool, count, ms)
      make_ready(pool, tenant)
      ring(pool)
    end
  end
end

-- Nothing of the tenant starts until that time, which ends by itself; nil ends it now.
local function stop_until(tenant, ms)
  if ms then
    redis.call('ZADD', 'hg1:stopped', int(ms), tenant)
    block(tenant)
  elseif redis.call('ZREM', 'hg1:stopped', tenant) == 1 then
    redis.call('ZREM', 'hg1:halted', tenant)
    unblock(tenant)
  end
end

-- Returns whether some tenant may still be stopped.
local function end_stops()
  local first = redis.call('ZRANGE', 'hg1:stopped', 0, 0, 'WITHSCORES')
  if not first[2] then return false end
  if tonumber(first[2]) <= NOW then
    for _, tenant in ipairs(redis.call('ZRANGEBYSCORE', 'hg1:stopped', '-inf', int(NOW))) do stop_until(tenant, nil) end
  end
  return true
end

-- One more or fewer of a tenant in a hash of counts; a count of nothing is no field.
local function count_by(key, tenant, by)
  if redis.call('HINCRBY', key, tenant, int(by)) <= 0 then redis.call('HDEL', key, tenant) end
end

-- What a message leaves when it leaves its line; the last one takes the stale entries with it. `popped`: its tenant was in the pool's
-- `ready`, where no blocked one is.
local function leave_line(m, popped)
  if popped or redis.call('SISMEMBER', 'hg1:blocked', m.t) == 0 then add_load(m.q, -1, -m.c) end
  count_by('hg1:work:' .. m.q, m.t, -m.c)
  local left = redis.call('HINCRBY', 'hg1:depth:' .. m.q, m.t .. '|' .. m.p, -1)
  if left <= 0 then
    redis.call('HDEL', 'hg1:depth:' .. m.q, m.t .. '|' .. m.p)
    redis.call('DEL', queue_of(m))
    redis.call('HDEL', 'hg1:age:' .. m.q .. ':' .. m.t, m.p)
  end
end

-- Put a message in line, first or last, and mark its tenant as waiting.
local function enqueue(tag, m, first)
  m.w, m.k = 'q', m.k + 1
  write_meta(tag, m)
  redis.call(first and 'RPUSH' or 'LPUSH', queue_of(m), tag .. ':' .. m.k)
  redis.call('HINCRBY', 'hg1:depth:' .. m.q, m.t .. '|' .. m.p, 1)
  redis.call('HINCRBY', 'hg1:work:' .. m.q, m.t, int(m.c))
  if redis.call('SISMEMBER', 'hg1:blocked', m.t) == 0 then
    add_load(m.q, 1, m.c)
    make_ready(m.q, m.t)
    ring(m.q)
  end
end

-- A message waits for its time.
local function delay(tag, m, ms)
  m.w = 'd'
  write_meta(tag, m)
  redis.call('ZADD', 'hg1:delayed', int(NOW + ms), tag)
  count_by('hg1:delayed:by', m.t, 1)
end

-- A message that was let out of a list before, and could not go, comes first there again.
local function park(tag, m, list, recheck_ms)
  m.w = list
  write_meta(tag, m)
  redis.call(m.u == list and 'LPUSH' or 'RPUSH', 'hg1:parked:' .. list, tag)
  count_by('hg1:parked:by', m.t, 1)
  if recheck_ms then redis.call('ZADD', 'hg1:recheck', 'LT', int(NOW + recheck_ms), list) end
end

-- Whether a message of this pool was let out of a list, and only its turn is missing.
local function is_on_its_way(list, pool)
  local tag = redis.call('HGET', 'hg1:out', list .. '|' .. pool)
  local m = tag and read_meta(tag)
  return m and m.w == 'q' and m.u == list and redis.call('SISMEMBER', 'hg1:blocked', m.t) == 0
end

-- The oldest message parked in a list whose tenant is not blocked goes back in line, first; those forgotten meanwhile are passed over.
-- `patient`: none of a pool where one is on its way already.
local function unpark(list, patient)
  local aside, found = {}, nil
  for _ = 1, patient and LOOK_AGAIN_MAX or 200 do
    local tag = redis.call('LPOP', 'hg1:parked:' .. list)
    if not tag then break end
    local m = read_meta(tag)
    if m and m.w == list then
      if redis.call('SISMEMBER', 'hg1:blocked', m.t) == 0 and not (patient and is_on_its_way(list, m.q)) then
        found, m.u = tag, list
        redis.call('HSET', 'hg1:out', list .. '|' .. m.q, tag)
        count_by('hg1:parked:by', m.t, -1)
        enqueue(tag, m, true)
        break
      end
      aside[#aside + 1] = tag
    end
  end
  for i = #aside, 1, -1 do redis.call('LPUSH', 'hg1:parked:' .. list, aside[i]) end
  return found
end

-- Lists with messages that might go: a token is due, or what was let out is held up by its tenant or its pool.
local function look_again()
  for _, list in ipairs(redis.call('ZRANGEBYSCORE', 'hg1:recheck', '-inf', int(NOW), 'LIMIT', 0, 10)) do
    redis.call('ZREM', 'hg1:recheck', list)
    unpark(list, true)
    if redis.call('EXISTS', 'hg1:parked:' .. list) == 1 then redis.call('ZADD', 'hg1:recheck', int(NOW + RECHECK_MS), list) end
  end
end

-- What a message that was let out and went, or does not go after all, leaves to the next one.
local function forget_out(m)
  redis.call('HDEL', 'hg1:out', m.u .. '|' .. m.q)
end

-- A message that had been let out does not go after all: the place it was let out for is the next one's.
local function pass_on(m)
  if not m.u then return end
  forget_out(m)
  if m.r ~= '' and run_has_place(m.r) then unpark('place:' .. m.r) end
  for _, limit in ipairs(limits_of(m)) do
    if limit_has_place(limit) then unpark('limit:' .. limit.key) end
  end
end

-- A message that had been let out is held. There may be more room than for it alone: a cap or a limit was raised, or is gone.
local function let_follow(list, m)
  local run, key = list:match('^place:(.*)$'), list:match('^limit:(.*)$')
  local room = run and run_has_place(run)
  if key then
    room = true
    for _, limit in ipairs(m.h or {}) do
      if limit.key == key then room = not limit.rate and limit_has_place(limit) end
    end
  end
  if room then unpark(list) end
end

-- Forget a message wherever it is; entries and tags left behind in lists are passed over. One that is held takes its places until
-- its holder lets go of it.
local function drop(tag, known)
  local m = known or read_meta(tag)
  redis.call('HDEL', 'hg1:msg', tag)
  if not m then return end
  if m.w == 'h' then
    m.gone = 1
    write_meta(tag, m)
  else
    redis.call('HDEL', 'hg1:meta', tag)
  end
  if m.w == 'd' then
    redis.call('ZREM', 'hg1:delayed', tag)
    count_by('hg1:delayed:by', m.t, -1)
  elseif m.w == 'x' then
    redis.call('HDEL', 'hg1:letters', tag)
  elseif m.w == 'q' then
    leave_line(m)
    pass_on(m)
  elseif m.w ~= 'h' and m.w ~= '' then
    count_by('hg1:parked:by', m.t, -1)
  end
  if m.o ~= '' and redis.call('HGET', 'hg1:once', m.o) == tag then redis.call('HDEL', 'hg1:once', m.o) end
end

local function drop_once(once)
  local tag = redis.call('HGET', 'hg1:once', once)
  if tag then drop(tag) end
end

local function outstanding(once)
  local tag = redis.call('HGET', 'hg1:once', once)
  return tag and redis.call('HEXISTS', 'hg1:msg', tag) == 1
end

local function learn(m, took)
  if m.f == '' then return end
  local field = m.t .. '|' .. m.f
  local text = redis.call('HGET', 'hg1:expected', field)
  local before = text and tonumber(text)
  local known = before or took
  local now = math.max(1, math.floor(known + (took - known) / 8))
  if now ~= before then redis.call('HSET', 'hg1:expected', field, int(now)) end
end

-- Move a tenant's virtual time by worker time that it was not charged for yet, or was charged too much.
local function correct(m, ms)
  local finish = redis.call('HINCRBY', 'hg1:vft:' .. m.q, m.t, int(math.floor(ms / rule_of(m.t).weight)))
  if redis.call('ZSCORE', 'hg1:ready:' .. m.q, m.t) then
    local clock = tonumber(redis.call('GET', 'hg1:clock:' .. m.q) or 0)
    redis.call('ZADD', 'hg1:ready:' .. m.q, int(math.max(clock, finish)), m.t)
  end
end

-- Note worker time that a tenant received, in the minute in which it is noted.
local function serve(tenant, ms)
  if ms <= 0 then return end
  local key = 'hg1:served:' .. int(math.floor(NOW / 60000))
  if redis.call('HINCRBY', key, tenant, int(ms)) == ms then redis.call('EXPIRE', key, SERVED_KEPT_S) end
end

-- What runs for longer than it was expected to is charged as it goes: else a tenant of long work would take every slot
-- before its first message ends. What it received is noted as it goes, too.
local function account_for_held(inc)
  local key, received = 'hg1:unacked:' .. inc, {}
  local rows = redis.call('HGETALL', key)
  for i = 1, #rows, 2 do
    local delivery, popped, charged, served = rows[i + 1]:match('^(%d+)|(%d+)|(%d+)|(%d+)$')
    local m = NOW > tonumber(served) and read_meta(rows[i])
    if m then
      local overdue = math.max(0, NOW - popped - charged)
      redis.call('HSET', key, rows[i], delivery .. '|' .. popped .. '|' .. int(charged + overdue) .. '|' .. int(NOW))
      received[m.t] = (received[m.t] or 0) + NOW - served
      if overdue > 0 then correct(m, overdue) end
    end
  end
  for tenant, ms in pairs(received) do serve(tenant, ms) end
end

-- Take a tag from who holds it: places it took are free, and its tenant's clock is corrected by what it really took (nothing, where the
-- server's clock was set back meanwhile).
local function unhold(inc, tag, row)
  local _, popped, charged, served = read_held(inc, tag, row)
  redis.call('HDEL', 'hg1:unacked:' .. inc, tag)
  local m = read_meta(tag)
  if not m then return nil end
  redis.call('HINCRBY', 'hg1:running', m.q, -1)
  redis.call('SREM', 'hg1:held:tenant:' .. m.t, tag)
  if m.r ~= '' then
    redis.call('SREM', 'hg1:held:run:' .. m.r, tag)
    unpark('place:' .. m.r)
  end
  for _, limit in ipairs(m.h or {}) do redis.call('SREM', 'hg1:held:limit:' .. limit.key, tag) end
  for _, limit in ipairs(m.h or {}) do unpark('limit:' .. limit.key) end
  local took = math.max(0, NOW - popped)
  learn(m, took)
  correct(m, took - charged)
  serve(m.t, NOW - served)
  unblock(m.t)
  m.w, m.h = '', nil
  if m.gone then
    redis.call('HDEL', 'hg1:meta', tag)
    return nil
  end
  return m
end

-- Forget a message that an incarnation is done with. Returns 1, or 0 where it does not hold this delivery.
local function settle_message(inc, tag, delivery)
  local row = live(inc) and redis.call('HGET', 'hg1:unacked:' .. inc, tag)
  if not row or read_held(inc, tag, row) ~= delivery then return 0 end
  local m = unhold(inc, tag, row)
  if m then drop(tag, m) end
  return 1
end

-- Let go of a tag that an incarnation holds: back in line (first), or delayed.
local function release(inc, tag, delay_ms, demote)
  local m = unhold(inc, tag)
  if not m then return end
  if demote then m.p = math.min(m.p + 2, 9) end
  if delay_ms > 0 then delay(tag, m, delay_ms) else enqueue(tag, m, true) end
end

-- A message that is not tried again by itself; a person looks at it.
local function bury_letter(tag, m, reason)
  m.w = 'x'
  write_meta(tag, m)
  redis.call('HSET', 'hg1:letters', tag, cjson.encode({reason = reason, at = NOW, deaths = m.deaths or {}}))
  emit({t = 'message.dead', tenant = m.t, tag = tag, reason = reason})
end

-- Declare an incarnation dead: from here on it holds nothing, its leases are over.
local function bury(inc, kind)
  redis.call('ZREM', 'hg1:incarnations', inc)
  local info = cjson.decode(redis.call('HGET', 'hg1:worker:' .. inc, 'info') or '{}')
  for _, name in ipairs(info.tasks or {}) do
    if redis.call('HINCRBY', 'hg1:serves', name, -1) <= 0 then redis.call('HDEL', 'hg1:serves', name) end
  end
  for _, pool in ipairs(info.pools or {}) do redis.call('HDEL', 'hg1:slots:' .. pool, inc) end
  redis.call('DEL', 'hg1:worker:' .. inc)
  redis.call('RPUSH', 'hg1:dying', inc .. '|' .. kind)
  emit({t = kind, inc = inc})
end

-- Give back what the dead held, oldest first in line. Returns moved, more (0/1).
-- An ordinary message that took three workers with it becomes a dead letter; a node's gate counts for itself.
local function give_back(limit)
  local moved = 0
  while moved < limit do
    local row = redis.call('LINDEX', 'hg1:dying', 0)
    if not row then break end
    local inc, kind = row:match('^(.*)|(.-)$')
    local tags = redis.call('HKEYS', 'hg1:unacked:' .. inc)
    table.sort(tags, function(a, b) return number_of(a) > number_of(b) end)
    for _, tag in ipairs(tags) do
      if moved == limit then return moved, 1 end
      local m = read_meta(tag)
      if m and not m.gone and kind == 'worker.dead' then
        m.deaths = m.deaths or {}
        m.deaths[#m.deaths + 1] = {inc = inc, at = NOW}
        write_meta(tag, m)
      end
      if m and not m.gone and m.o == '' and m.deaths and #m.deaths >= DEATHS_MAX then
        bury_letter(tag, unhold(inc, tag), 'three workers died while they held it')
      else
        release(inc, tag, 0)
      end
      moved = moved + 1
    end
    redis.call('LPOP', 'hg1:dying')
  end
  return moved, redis.call('LLEN', 'hg1:dying') > 0 and 1 or 0
end
