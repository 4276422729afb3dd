-- Remove messages: by once-ids or tags, at most 200 a call. ARGV: S, kind (once or tag), ids... Held ones stay with who holds them,
-- and are not delivered again. Returns how many existed.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local count = 0
for i = 3, #ARGV do
  local tag = ARGV[2] == 'once' and redis.call('HGET', 'hg1:once', ARGV[i]) or ARGV[i]
  local m = tag and read_meta(tag)
  if m and not m.gone then
    drop(tag, m)
    count = count + 1
  end
end
return count
