-- Store a decision about a run, once, before anything of it is applied. ARGV: S, run, gen, n, mark (action and flags), fence (''; terminated: nothing
-- begins any more but what is kept; hold or finish: what a pause of the run, which comes next, is for; none: such a pause is over), plan (JSON; '' = there is nothing to apply), event (JSON, with `decision` = {run}.{gen}.{n}), then nodes that are kept although the
-- run is terminated (at most 200).
-- Returns 1; 0: another decision was the n-th, one is being applied, or nothing of the run is to be decided any more. Nothing has changed then.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local n, mark, fence, plan = tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]
local key, decision = 'hg1:decision:' .. RG, RG .. '.' .. ARGV[4]
local run = get_run()
if not run or (run.status ~= 'running' and run.status ~= 'loading') or run.stopped or run.terminated then return 0 end
local known = redis.call('HMGET', key, 'n', 'open')
if n ~= tonumber(known[1] or 0) + 1 or known[2] then return 0 end
redis.call('HSET', key, 'n', int(n), 'last', mark)
if plan ~= '' then redis.call('HSET', key, 'open', decision, 'plan', plan) end
if fence == 'terminated' then redis.call('HSET', 'hg1:run:' .. RG, 'terminated', decision)
elseif fence == 'none' then redis.call('HDEL', 'hg1:run:' .. RG, 'waits')
elseif fence ~= '' then redis.call('HSET', 'hg1:run:' .. RG, 'waits', fence) end
for i = 9, #ARGV do redis.call('HSET', key, 'kept:' .. ARGV[i], 1) end
emit_text(ARGV[8])
return 1
