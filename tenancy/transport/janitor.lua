-- Forget removed messages, a piece at a time. ARGV: S, cursor ('0' starts), count (<= 200).
-- Returns {next cursor ('0' = a whole round is done), forgotten}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local reply = redis.call('HSCAN', 'hg1:meta', ARGV[2], 'COUNT', ARGV[3])
local forgotten = 0
if redis.call('EXISTS', 'hg1:dead') == 1 then
  for i = 1, #reply[2], 2 do
    local tag, m = reply[2][i], cjson.decode(reply[2][i + 1])
    if m.w ~= 'h' and is_removed(tag, m) then
      drop(tag, m)
      forgotten = forgotten + 1
    end
  end
end
return {reply[1], forgotten}
