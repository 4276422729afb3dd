-- Write down a try to deliver a notice, before it is on record, so that nobody sends it again meanwhile.
-- hg1:notices  notice -> begun, sent, failed or dropped|tries|due ms; forgotten once the record says the same
-- ARGV: S, tenant, notice, outcome (begun: a try begins; the others end it), tries, due_ms, error. Returns 1.
-- @include tenancy/kernel
redis.call('HSET', 'hg1:notices', ARGV[3], ARGV[4] .. '|' .. ARGV[5] .. '|' .. ARGV[6])
if ARGV[4] ~= 'begun' then
  emit({t = 'notice.' .. ARGV[4], tenant = ARGV[2], notice = ARGV[3], tries = tonumber(ARGV[5]), due = ARGV[6], error = ARGV[7]})
end
return 1
