-- Forget messages that nobody holds, a piece at a time; dead letters stay. ARGV: S, cursor ('0' starts), count (<= 200), pool, tenant,
-- priority ('' = any, for each of the three). Returns {next cursor ('0' = a whole round is done), forgotten}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local reply = redis.call('HSCAN', 'hg1:meta', ARGV[2], 'COUNT', ARGV[3])
local tags, forgotten = {}, 0
for i = 1, #reply[2], 2 do tags[#tags + 1] = reply[2][i] end
table.sort(tags, function(a, b) return number_of(a) < number_of(b) end)
for _, tag in ipairs(tags) do
  local m = read_meta(tag)  -- as it is now: one that was forgotten before may have let it out of its list
  local named = m and (ARGV[4] == '' or m.q == ARGV[4]) and (ARGV[5] == '' or m.t == ARGV[5]) and (ARGV[6] == '' or int(m.p) == ARGV[6])
  if named and m.w ~= 'h' and m.w ~= 'x' then
    drop(tag, m)
    forgotten = forgotten + 1
  end
end
return {reply[1], forgotten}
