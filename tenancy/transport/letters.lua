-- Dead letters. ARGV: S, act (requeue or discard), tags.. (at most 200). A letter that is put back starts with no deaths.
-- Returns how many there were.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local count = 0
for i = 3, #ARGV do
  local tag = ARGV[i]
  local m = read_meta(tag)
  if m and m.w == 'x' then
    if ARGV[2] == 'requeue' then
      redis.call('HDEL', 'hg1:letters', tag)
      m.deaths = nil
      enqueue(tag, m, false)
    else
      drop(tag, m)
    end
    count = count + 1
  end
end
return count
