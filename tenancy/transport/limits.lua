-- Limits by key, and places of a run: what may stand in the way of a message whose turn it is.
--
-- hg1:held:{scope}      set of tags held; scope run:{r}, limit:{key}
-- hg1:caps              run -> max_parallel
-- hg1:paused            set of platform, tenant:{t}, run:{r}
-- hg1:bucket:{key}      tokens|since of a rate limit; hg1:tokens zset key -> when it has the next token

-- Milliseconds until a rate limit has a token, 0 when it has one now, and the tokens there are. The bucket holds what a tenth
-- of a minute gives, at least one.
local function wait_for_token(limit)
  local size, per_ms = math.max(1, limit.rate / 10), limit.rate / 60000
  local row = redis.call('GET', 'hg1:bucket:' .. limit.key)
  local tokens, since = size, NOW
  if row then
    tokens, since = row:match('^(.-)|(.*)$')
    tokens = math.min(size, tokens + (NOW - since) * per_ms)
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

-- Why a message may not go now: the list to park it in.
local function obstacle(m)
  if m.r ~= '' then
    if redis.call('SISMEMBER', 'hg1:paused', 'run:' .. m.r) == 1 then return 'pause:' .. m.r end
    if not run_has_place(m.r) then return 'place:' .. m.r end
  end
  for _, limit in ipairs(m.l) do
    local place, wait = limit_has_place(limit)
    if wait > 0 then redis.call('ZADD', 'hg1:tokens', int(NOW + wait), limit.key) end
    if not place then return 'limit:' .. limit.key end
  end
end
