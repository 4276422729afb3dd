-- May a tenant submit another run? Asked before anything is put on record, so that a flood of submissions leaves nothing behind.
-- ARGV: S, tenant. Takes a token of hg1:rate:{tenant} (string tokens|since|minute|count|before): the bucket holds a tenth of
-- submissions_per_minute, at least 1. count, before: submissions of that minute and of the one before it.
-- Returns {'ok'}; {'rate', submissions_per_minute, those of the last minute, ms to the next token};
-- {'queue', max_waiting_runs, waiting, ms until a place is likely free}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/line
local tenant = ARGV[2]
local terms = terms_of(tenant)
if not terms then return {'ok'} end
local waiting = terms.in_line + terms.beside
if waiting > 0 and waiting >= terms.max_waiting then
  return {'queue', int(terms.max_waiting), int(waiting), retry_after(terms)}
end
local a_minute = tonumber(redis.call('HGET', 'hg1:tenant:' .. tenant, 'submissions_per_minute') or '')
if not a_minute then return {'ok'} end
local burst, minute = math.max(1, math.floor(a_minute / 10)), math.floor(NOW / 60000)
local tokens, count, before = burst, 0, 0
local row = redis.call('GET', 'hg1:rate:' .. tenant)
if row then
  local left, since, of, n, earlier = row:match('^(.-)|(.-)|(.-)|(.-)|(.*)$')
  tokens = math.min(burst, left + (NOW - since) * a_minute / 60000)
  if tonumber(of) == minute then
    count, before = tonumber(n), tonumber(earlier)
  elseif tonumber(of) == minute - 1 then
    before = tonumber(n)
  end
end
if tokens < 1 then
  local lately = count + math.floor(before * (1 - NOW % 60000 / 60000))
  return {'rate', int(a_minute), int(lately), int(math.ceil((1 - tokens) * 60000 / a_minute))}
end
redis.call('SET', 'hg1:rate:' .. tenant,
  string.format('%.6f', tokens - 1) .. '|' .. int(NOW) .. '|' .. int(minute) .. '|' .. int(count + 1) .. '|' .. int(before), 'PX', 120000)
return {'ok'}
