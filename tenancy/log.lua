-- Append one event made outside a transition (a request to the recorder), for which somebody waits.
-- ARGV: S, event JSON object.   Returns 1.
-- @include tenancy/kernel
emit(cjson.decode(ARGV[2]))
hurry()
return 1
