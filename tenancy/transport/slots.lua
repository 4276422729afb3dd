-- A worker's pool grew or shrank. ARGV: S, inc, slots. Returns 1, or 0 when inc is not live.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if not live(ARGV[2]) then return 0 end
local info = cjson.decode(redis.call('HGET', 'hg1:worker:' .. ARGV[2], 'info') or '{}')
for _, pool in ipairs(info.pools or {}) do redis.call('HSET', 'hg1:slots:' .. pool, ARGV[2], ARGV[3]) end
return 1
