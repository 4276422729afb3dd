-- Close the executions of ordinary Celery tasks whose worker is gone: it no longer holds the message by the fair queue, or, where that was
-- acknowledged before it ran, is dead, or, where another transport delivers, there was no sign of life for the task's patience. ARGV: S, age_ms (younger ones are left to their signals), first,
-- count. Returns {next first, or -1 after the last; closed}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include cost/tasks
local age, first, count = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local rows = redis.call('ZRANGEBYSCORE', 'hg1:tasks', '-inf', int(NOW - age), 'WITHSCORES', 'LIMIT', first, count)
local closed, kept = 0, 0
for at = 1, #rows, 2 do
  local id, silent = rows[at], NOW - tonumber(rows[at + 1])
  local row = redis.call('HMGET', 'hg1:task:' .. id, 'inc', 'tag', 'delivery', 'patience')
  local gone
  if not row[2] or row[2] == '' then gone = silent >= tonumber(row[4] or 0)
  elseif row[3] == '' then gone = not live(row[1])
  else gone = not holds(row[1], row[2], row[3]) end
  if gone then
    for _, open in ipairs(open_of(id)) do
      local answer = close_unreported(id, open[1], open[2], 'sweeper')
      if answer == 'settled' or answer == 'void' then closed = closed + 1 end
    end
    rest(id)
  else
    kept = kept + 1
  end
end
return {#rows < 2 * count and -1 or first + kept, closed}
