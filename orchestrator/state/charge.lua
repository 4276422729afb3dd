-- One settlement of an execution of this run, and what may follow from it (no key, no ARGV of its own): for `settle`, and for a claim that
-- settlements ride with.
-- @include orchestrator/state/pressure

-- `answer` is settled, same, conflict, waste or unknown. Returns {answer, 0|1, 0|1}; the first 1: a run that waits may start now, call let_in; the
-- second: a level was entered, call the agent.
local function charge(run, node, attempt, cats, by, price_version, lines, rules)
  if not run then return {'unknown', 0, 0} end
  local had_ended = run.status == 'ended'
  was_level_entered = false
  local answer = settle(RUN, GEN, node, attempt, cats, by, run.left > 0, price_version, lines)
  if answer == 'settled' then need_again(node, attempt) end
  maybe_end(run)
  return {answer, somebody_may_start(run.status == 'ended' and not had_ended, rules), was_level_entered and 1 or 0}
end
