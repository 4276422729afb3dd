-- Change the priority of messages that wait, at most 200 a call. ARGV: S, priority, kind (once or tag), ids...
-- A message in line goes last in its new line; one that is held, parked or delayed has it from its next time in line.
-- Returns how many were changed.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local priority, changed = tonumber(ARGV[2]), 0
for i = 4, #ARGV do
  local tag = ARGV[3] == 'once' and redis.call('HGET', 'hg1:once', ARGV[i]) or ARGV[i]
  local m = tag and read_meta(tag)
  if m and not m.gone and m.p ~= priority then
    if m.w == 'q' then
      leave_line(m)
      m.p = priority
      enqueue(tag, m, false)
    else
      m.p = priority
      write_meta(tag, m)
    end
    changed = changed + 1
  end
end
return changed
