-- Make an incarnation live. ARGV: S, inc, ttl_ms (unused by the script, for the log), info JSON {name, host, pid, pools, slots, tasks,
-- limits {task: [limit]}, expected_ms {task: ms}}. What it says of a task that it serves replaces what was said before.
-- Returns 1.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local inc, info = ARGV[2], cjson.decode(ARGV[4])
if not live(inc) then
  local limits, expected = info.limits or {}, info.expected_ms or {}
  for _, name in ipairs(info.tasks or {}) do
    redis.call('HINCRBY', 'hg1:serves', name, 1)
    if #(limits[name] or {}) > 0 then
      redis.call('HSET', 'hg1:limits', name, cjson.encode(limits[name]))
    else
      redis.call('HDEL', 'hg1:limits', name)
    end
    if expected[name] then
      redis.call('HSET', 'hg1:declared', name, int(expected[name]))
    else
      redis.call('HDEL', 'hg1:declared', name)
    end
  end
  for _, pool in ipairs(info.pools or {}) do
    redis.call('SADD', 'hg1:pools', pool)
    redis.call('HSET', 'hg1:slots:' .. pool, inc, info.slots or 1)
  end
  redis.call('HSET', 'hg1:worker:' .. inc, 'info', ARGV[4], 'since', int(NOW))
  emit({t = 'worker.enrolled', inc = inc, info = info})
end
redis.call('ZADD', 'hg1:incarnations', int(NOW), inc)
return 1
