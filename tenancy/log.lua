-- Append one event made outside a transition (a request to the recorder).
-- ARGV: S, event JSON object.   Returns 1.
-- @include tenancy/kernel
emit(cjson.decode(ARGV[2]))
return 1
