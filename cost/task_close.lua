-- Close an execution of an ordinary Celery task whose process will not report: with what it had noted, once. ARGV: S, task id, name,
-- attempt, by. Returns settled, void (nothing was noted), same (it was closed before) or unknown.
-- @include tenancy/kernel
-- @include cost/ledger
-- @include cost/tasks
return close_unreported(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
