-- Store a message and put it in line.
-- ARGV: S, payload, tenant, priority, pool, cost_ms, once-id or '', replace 0|1, delay_ms, run or '', task or '',
--       limits JSON [{key, at_once?, rate? (a minute)}]. A cost of 0 means what the task took lately, else a second.
-- Returns the tag, or '' when the once-id names a message that still exists and replace is 0.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local once = ARGV[7]
if once ~= '' and ARGV[8] == '0' and outstanding(once) then return '' end
local tag = 'm' .. redis.call('HINCRBY', 'hg1:epoch', 'tags', 1)
local m = {t = ARGV[3], p = tonumber(ARGV[4]), q = ARGV[5], c = tonumber(ARGV[6]), n = 0, o = once, r = ARGV[10],
           f = ARGV[11], l = cjson.decode(ARGV[12]), s = NOW, w = '', k = 0}
if m.c == 0 then m.c = tonumber(m.f ~= '' and redis.call('HGET', 'hg1:expected', m.t .. '|' .. m.f) or EXPECTED_MS) end
redis.call('SADD', 'hg1:pools', m.q)
redis.call('HSET', 'hg1:msg', tag, ARGV[2])
if once ~= '' then redis.call('HSET', 'hg1:once', once, tag) end
if tonumber(ARGV[9]) > 0 then
  m.w = 'd'
  write_meta(tag, m)
  redis.call('ZADD', 'hg1:delayed', int(NOW + ARGV[9]), tag)
else
  enqueue(tag, m, false)
end
return tag
