-- Remove every message of a tenant or run that exists now, in one step: pop passes them over, the janitor forgets them.
-- ARGV: S, scope (tenant:{t} or run:{r}). Returns the number of the last tag removed.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
local upto = redis.call('HGET', 'hg1:epoch', 'tags') or '0'
redis.call('HSET', 'hg1:dead', ARGV[2], upto)
return tonumber(upto)
