-- Store a message and put it in line.
-- ARGV: S, payload, tenant, priority, pool ('' = the tenant's, else `default`), cost_ms (0 = what the task took lately, else what it
--       declares, else a second), once-id or '', replace 0|1, delay_ms, run or '', task or '',
--       limits JSON [{key, at_once?, rate? (a minute), per? "tenant"}] (none: those of the task when it is popped).
-- The messages of a run whose priority was changed have that one. Returns the tag, or '' when the once-id names a message that still exists and replace is 0.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local once = ARGV[7]
if once ~= '' and ARGV[8] == '0' and outstanding(once) then return '' end
local tag = 'm' .. redis.call('HINCRBY', 'hg1:epoch', 'tags', 1)
local m = {t = ARGV[3], p = tonumber(ARGV[4]), q = ARGV[5], c = tonumber(ARGV[6]), n = 0, o = once, r = ARGV[10],
           f = ARGV[11], l = cjson.decode(ARGV[12]), s = NOW, w = '', k = 0}
if m.r ~= '' then m.p = tonumber(redis.call('HGET', 'hg1:ranks', m.r) or m.p) end
if m.q == '' then
  local own = redis.call('HGET', 'hg1:tenant:' .. m.t, 'pool')
  m.q = own and own ~= '' and own or 'default'
end
if m.c == 0 and m.f ~= '' then
  m.c = tonumber(redis.call('HGET', 'hg1:expected', m.t .. '|' .. m.f) or redis.call('HGET', 'hg1:declared', m.f) or 0)
end
if m.c == 0 then m.c = EXPECTED_MS end
redis.call('SADD', 'hg1:pools', m.q)
redis.call('HSET', 'hg1:msg', tag, ARGV[2])
if once ~= '' then redis.call('HSET', 'hg1:once', once, tag) end
local delay_ms = tonumber(ARGV[9])
if delay_ms > 0 then delay(tag, m, delay_ms) else enqueue(tag, m, false) end
return tag
