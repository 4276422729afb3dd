-- Load nodes and fragments of an admitted run, in pieces of at most 200 rows; absolute, so repeating changes nothing.
-- ARGV: S, run, gen, number of nodes, then per node id, wait, ctl, spec, verdict, fragment; then pairs fragment, JSON.
-- Returns the number of nodes loaded, 0 once the run has been launched.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local run = get_run()
if not run or (run.status ~= 'loading' and run.status ~= 'cancelling') then return 0 end
local count, at = tonumber(ARGV[4]), 5
for _ = 1, count do
  local node, wait, ctl, spec, verdict, fragment = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  if redis.call('HSETNX', 'hg1:state:' .. RG, node, 'pending') == 1 then
    redis.call('HSET', 'hg1:wait:' .. RG, node, wait)
    redis.call('HSET', 'hg1:ctl:' .. RG, node, ctl)
    redis.call('HSET', 'hg1:spec:' .. RG, node, spec)
    redis.call('HSET', 'hg1:fragment:' .. RG, 'of:' .. node, fragment)
    if verdict ~= '' then redis.call('HSET', 'hg1:verdict:' .. RG, node, verdict) end
  end
  at = at + 6
end
for i = at, #ARGV - 1, 2 do redis.call('HSET', 'hg1:fragment:' .. RG, ARGV[i], ARGV[i + 1]) end
return count
