-- All of a decision is applied: the hold follows, and that is on record, once. ARGV: S, run, gen, decision, left (micros that the hold is to keep
-- for what is pending; '' = it stays), raised 0|1 (it may rise to that, too), event (JSON).
-- Returns {1, what the hold gained, less than 0 where it gave back}; {0, '0'}: it was completed before, and nothing has changed.
-- Event decision.applied, with to_hold where the hold has changed.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local key, decision, left = 'hg1:decision:' .. RG, ARGV[4], ARGV[5]
if redis.call('HGET', key, 'open') ~= decision then return {0, '0'} end
redis.call('HDEL', key, 'open', 'plan')
local run, moved = get_run(), 0
if left ~= '' and run and run.status ~= 'ended' then moved = hold_to(RG, micros(left), ARGV[6] == '1') end
local text = ARGV[7]
if moved ~= 0 then text = text:sub(1, -2) .. ',"to_hold":"' .. int(moved) .. '"}' end
emit_text(text)
return {1, int(moved)}
