-- An incarnation leaves on purpose; what it still holds goes first in line. ARGV: S, inc. Returns 1, or 0 when it is not live.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
if not live(ARGV[2]) then return 0 end
bury(ARGV[2], 'worker.retired')
give_back(200)
return 1
