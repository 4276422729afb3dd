-- A tenant's policy or period changed: enter and leave levels by what holds now. ARGV: S, tenant. Returns 1.
-- @include tenancy/kernel
-- @include cost/ledger
take_levels(ARGV[2], 'policy')
return 1
