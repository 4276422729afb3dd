-- Take the next message: the waiting tenant of least virtual start time, its best priority, its oldest message that may go.
-- ARGV: S, inc, pool, sleep_ms; then of each message to settle before, as `ack` does: inc, tag, delivery.
-- Returns {tag, payload, delivery}, with a fourth where its time limit was raised since: s; {'SLEEP', ms} when there is nothing (inc is then listed as a sleeper): how long to wait for the bell
-- at most, sleep_ms or until the next delayed message or token is due;
-- {'DEAD'} when the incarnation is not live; {'MORE'} when 200 messages were passed over: call again.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local inc, pool = ARGV[2], ARGV[3]
for i = 5, #ARGV, 3 do settle_message(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
if not live(inc) then return {'DEAD'} end
redis.call('ZREM', 'hg1:sleepers:' .. pool, inc)

local function sleep()
  local ms = tonumber(ARGV[4])
  for _, key in ipairs({'hg1:delayed', 'hg1:recheck', 'hg1:stopped'}) do
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then ms = math.max(1, math.min(ms, first[2] - NOW)) end
  end
  redis.call('ZADD', 'hg1:sleepers:' .. pool, int(NOW + ms), inc)
  return {'SLEEP', ms}
end

for _, tag in ipairs(redis.call('ZRANGEBYSCORE', 'hg1:delayed', '-inf', int(NOW), 'LIMIT', 0, 200)) do
  redis.call('ZREM', 'hg1:delayed', tag)
  local m = read_meta(tag)
  if m then
    count_by('hg1:delayed:by', m.t, -1)
    enqueue(tag, m, false)
  end
end
local stops = end_stops()
look_again()
local pauses = redis.call('SCARD', 'hg1:paused') > 0
if pauses and redis.call('SISMEMBER', 'hg1:paused', 'platform') == 1 then return sleep() end

-- The levels at which a tenant has something in line, best first; they are read once, a pop asks for them twice.
local function waiting_levels(tenant)
  local fields, levels = {}, {}
  for i, priority in ipairs(PRIORITIES) do fields[i] = tenant .. '|' .. priority end
  for i, depth in ipairs(redis.call('HMGET', 'hg1:depth:' .. pool, unpack(fields))) do
    if depth then levels[#levels + 1] = PRIORITIES[i] end
  end
  return levels
end

-- A level that was passed over nine times goes next, lowest level first; else the best level.
local function pick_level(tenant, levels)
  local patient
  if #levels > 1 then
    local age = 'hg1:age:' .. pool .. ':' .. tenant
    for _, priority in ipairs(levels) do
      if tonumber(redis.call('HGET', age, priority) or 0) >= PATIENCE then patient = priority end
    end
  end
  return patient or levels[1]
end

local function count_start(tenant, level, levels)
  local age = 'hg1:age:' .. pool .. ':' .. tenant
  redis.call('HDEL', age, level)
  for _, priority in ipairs(levels) do
    if priority ~= level then redis.call('HINCRBY', age, priority, 1) end
  end
end

local function hold(tag, m, limits)
  redis.call('SADD', 'hg1:held:tenant:' .. m.t, tag)
  if m.r ~= '' then redis.call('SADD', 'hg1:held:run:' .. m.r, tag) end
  for _, limit in ipairs(limits) do
    redis.call('SADD', 'hg1:held:limit:' .. limit.key, tag)
    if limit.rate then
      local _, tokens = wait_for_token(limit)
      redis.call('SET', 'hg1:bucket:' .. limit.key, string.format('%.6f', tokens - 1) .. '|' .. int(NOW), 'PX', 120000)
      if redis.call('LLEN', 'hg1:parked:limit:' .. limit.key) > 0 then
        redis.call('ZADD', 'hg1:recheck', int(NOW + (wait_for_token(limit))), 'limit:' .. limit.key)
      end
    end
  end
  local list = m.u
  if list then forget_out(m) end
  m.w, m.n, m.u, m.h = 'h', m.n + 1, nil, #limits > 0 and limits or nil
  write_meta(tag, m)
  redis.call('HSET', 'hg1:unacked:' .. inc, tag, m.n .. '|' .. int(NOW) .. '|' .. int(m.c) .. '|' .. int(NOW))
  redis.call('HINCRBY', 'hg1:running', pool, 1)
  if list then let_follow(list, m) end
end

-- Seconds to which the time limit of a message was raised since it was written, nil where it was not. Raised for {run}.a it is for {run}.a.b too.
local function raised(m)
  if m.r == '' then return nil end
  local names, most = {'*', m.o}, nil
  local dot = m.o:find('.', #m.r + 2, true)
  while dot do
    names[#names + 1] = m.o:sub(1, dot - 1)
    dot = m.o:find('.', dot + 1, true)
  end
  for _, seconds in ipairs(redis.call('HMGET', 'hg1:timeout:' .. m.r, unpack(names))) do
    if seconds then most = math.max(most or 0, tonumber(seconds)) end
  end
  return most
end

local ready = 'hg1:ready:' .. pool
for _ = 1, 200 do
  local head = redis.call('ZRANGE', ready, 0, 0, 'WITHSCORES')
  local tenant = head[1]
  if not tenant then return sleep() end
  local rule = rule_of(tenant)
  if is_blocked(tenant, rule, stops, pauses) then
    block(tenant)
  else
    local levels = waiting_levels(tenant)
    local level = pick_level(tenant, levels)
    local entry = level and redis.call('RPOP', 'hg1:queue:' .. pool .. ':' .. tenant .. ':' .. level)
    local tag, k = nil, nil
    if entry then tag, k = entry:match('^(.-):(%d+)$') end
    local m = tag and read_meta(tag)
    if not level then
      redis.call('ZREM', ready, tenant)
    elseif m and m.w == 'q' and m.k == tonumber(k) then
      leave_line(m, true)
      local limits = limits_of(m)
      local list, recheck_ms = obstacle(m, limits, pauses)
      if is_removed(tag, m) then
        m.w = ''
        drop(tag, m)
        pass_on(m)
      elseif list then
        park(tag, m, list, recheck_ms)
        pass_on(m)
      else
        count_start(tenant, level, levels)
        -- What was learned since it came in line counts: a backlog that was put before its task first ran would be charged the default.
        m.c = m.f ~= '' and tonumber(redis.call('HGET', 'hg1:expected', m.t .. '|' .. m.f) or m.c) or m.c
        local finish = int(head[2] + math.max(1, math.floor(m.c / rule.weight)))
        redis.call('SET', 'hg1:clock:' .. pool, head[2])
        redis.call('HSET', 'hg1:vft:' .. pool, tenant, finish)
        redis.call('ZADD', ready, finish, tenant)
        hold(tag, m, limits)
        if at_cap(tenant, rule) then block(tenant) end
        ring(pool)
        return {tag, redis.call('HGET', 'hg1:msg', tag), m.n, raised(m)}
      end
    end
  end
end
return {'MORE'}
