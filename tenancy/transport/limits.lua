-- Limits by key, and places of a run: what may stand in the way of a message whose turn it is.
--
-- hg1:limits            task -> JSON [{key, at_once?, rate? (a minute), per? "tenant"}], as the workers that serve the task declare it
-- hg1:held:{scope}      set of tags held; scope run:{r}, limit:{key}
-- hg1:caps              run -> max_parallel
-- hg1:paused            set of platform, tenant:{t}, run:{r}
-- hg1:bucket:{key}      tokens|since of a rate limit
-- hg1:recheck           zset list of parked messages -> when to look whether one of them may go

local RECHECK_MS = 1000
-- No rate limit needs longer for a token: a rate is at least one a minute.
local RECHECK_MAX_MS = 61000

-- The limits that hold for a message: those that came with it, else those of its task. One per tenant has a key for each tenant.
local function limits_of(m)
  local limits = m.l
  if #limits == 0 and m.f ~= '' then
    local declared = redis.call('HGET', 'hg1:limits', m.f)
    if declared then limits = cjson.decode(declared) end
  end
  local mine = {}
  for i, limit in ipairs(limits) do
    local key = limit.per == 'tenant' and limit.key .. '@' .. m.t or limit.key
    mine[i] = {key = key, at_once = limit.at_once, rate = limit.rate}
  end
  return mine
end

-- Milliseconds until a rate limit has a token, 0 when it has one now, and the tokens there are. The bucket holds what a tenth
-- of a minute gives, at least one. One that was filled later than now is of a clock that was set back since: it says nothing.
local function wait_for_token(limit)
  local size, per_ms = math.max(1, limit.rate / 10), limit.rate / 60000
  local row = redis.call('GET', 'hg1:bucket:' .. limit.key)
  local tokens, since = size, NOW
  if row then
    tokens, since = row:match('^(.-)|(.*)$')
    tokens = NOW < tonumber(since) and size or math.min(size, tokens + (NOW - since) * per_ms)
  end
  return tokens < 1 and math.ceil((1 - tokens) / per_ms) or 0, tokens
end

local function run_has_place(run)
  local cap = redis.call('HGET', 'hg1:caps', run)
  return not cap or redis.call('SCARD', 'hg1:held:run:' .. run) < tonumber(cap)
end

-- Whether one more may be held under a limit now, and how long until it has a token if that is what is missing.
local function limit_has_place(limit)
  if limit.at_once and redis.call('SCARD', 'hg1:held:limit:' .. limit.key) >= limit.at_once then return false, 0 end
  local wait = limit.rate and wait_for_token(limit) or 0
  return wait == 0, wait
end

-- Why a message may not go now: the list to park it in, and when to look at that list again. `pauses`: false where nothing is paused.
local function obstacle(m, limits, pauses)
  if m.r ~= '' then
    if pauses ~= false and redis.call('SISMEMBER', 'hg1:paused', 'run:' .. m.r) == 1 then return 'pause:' .. m.r end
    if not run_has_place(m.r) then return 'place:' .. m.r, RECHECK_MS end
  end
  for _, limit in ipairs(limits) do
    local place, wait = limit_has_place(limit)
    if not place then return 'limit:' .. limit.key, wait > 0 and wait or RECHECK_MS end
  end
end
