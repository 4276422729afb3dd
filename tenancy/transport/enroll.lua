-- Make an incarnation live. ARGV: S, inc, ttl_ms (unused by the script, for the log), info JSON {name, host, pid, pools, slots, tasks}.
-- Returns 1.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local inc, info = ARGV[2], cjson.decode(ARGV[4])
if not live(inc) then
  for _, name in ipairs(info.tasks or {}) do redis.call('HINCRBY', 'hg1:serves', name, 1) end
  for _, pool in ipairs(info.pools or {}) do
    redis.call('SADD', 'hg1:pools', pool)
    redis.call('HSET', 'hg1:slots:' .. pool, inc, info.slots or 1)
  end
  redis.call('HSET', 'hg1:worker:' .. inc, 'info', ARGV[4])
  emit({t = 'worker.enrolled', inc = inc, info = info})
end
redis.call('ZADD', 'hg1:incarnations', int(NOW), inc)
return 1
