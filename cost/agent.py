"""The cost agent's decision on one run: continue, degrade, restore, terminate, hold or finish. A function of its inputs alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cost.decision import Action, Decision, Trigger
from cost.inputs import Inputs
from cost.outlook import LEFT_LOWER_PERCENT, Basis, OnFloor, RunView, TenantView
from cost.plan import AS_IS, NodeCost, PlanDown, floor, plan_down, solver
from cost.strategies import EVERY, Choosable, fitting, stages, to_the_full, unasked

__all__ = ["Action", "Basis", "Decision", "Inputs", "OnFloor", "RunView", "TenantView", "Trigger", "decide", "decide_on", "solver"]

# What is restored must fit with this much to spare, or the next node that costs a little more would take it away again.
_SPARE_PERCENT: Final = 5

# Where what is done cost that much of its estimate the estimates are wrong; below it, the one node balances the other.
_DEAR_PERCENT: Final = 130


def decide_on(inputs: Inputs) -> Decision:
    """Decide from stored inputs: the same decision to the byte, with the solver that they name."""
    return decide(inputs.tenant, inputs.run, inputs.trigger)


def decide(tenant: TenantView, run: RunView, trigger: Trigger = "beat") -> Decision:
    """Decide on `run`: first whether it can end at all, then degrade, then restore, else continue (docs/money.md, "The agent").

    If what it holds, may get back from its open executions and may still be given is less than the floor of what it has
    to run, the policy says what becomes of it. It is degraded if its pending nodes do not fit what it holds and may be given,
    and the projection passes the limit, or too much is committed, or a node was refused; or if runs wait for one of several places. It is
    restored if money has appeared since the last verdict.
    """
    action, reason, plan, left = _judge(tenant, run, trigger)
    lowered = action == "degrade" or any(choice != AS_IS for choice in (plan.choices if plan else run.current).values())
    flags = tuple(
        name
        for name, raised in (
            ("BUDGET_ALERT", tenant.reached(tenant.levels[0])),
            ("BUDGET_CRITICAL", tenant.reached(tenant.levels[1])),
            ("CONCURRENCY_HIGH", tenant.high),
            ("PROJECTED_OVERRUN", _projected(tenant, run) > tenant.limit),
            ("DEGRADED_MODE", lowered),
            ("TERMINATED_BY_COST", action == "terminate"),
            ("OBSERVED_ONLY", tenant.observe),
        )
        if raised
    )
    return Decision(action, reason, flags, _projected(tenant, run), run.confidence(tenant.active), tenant.factor, plan, left)


_Judged = tuple[Action, str, PlanDown | None, int]


def _projected(tenant: TenantView, run: RunView) -> int:
    return tenant.elsewhere + tenant.others + run.projected


def _judge(tenant: TenantView, run: RunView, trigger: Trigger) -> _Judged:
    if not run.any_pending:
        return "continue", "nothing is pending", None, 0
    if run.stopped == "hold":
        return "continue", "on hold until it is approved", None, 0
    choosable = Choosable(tuple(run.pending), run.current)
    lowered = choosable.lowered()
    least, estimate, available = floor(lowered), sum(node.estimate_micros for node in lowered), run.available
    if available + run.reserved < least:
        return _short(tenant, run, least)
    if run.stopped:
        return "restore", f"what is required needs {least} micros, and {available + run.reserved} can be had again", None, 0
    if available < least:
        return "continue", f"what is required needs {least} micros: {available} are there, and {run.reserved} may come back", None, 0
    projected, likely = _projected(tenant, run), tenant.elsewhere + tenant.others + tenant.claimed + run.likely_total
    overrun = tenant.budget is not None and likely > tenant.limit  # never less than what is projected
    passing = f"projection: {projected if projected > tenant.limit else likely} micros of {tenant.limit}"
    if overrun and run.proven and max(estimate, run.likely(estimate)) > run.left(estimate, tenant.claimed):
        return _degraded(tenant, run, choosable, trigger, passing, proven=True)
    if estimate > available:
        short = f"{estimate} micros are pending, and {available} can be had"
        if trigger in ("admission", "gate"):
            return _degraded(tenant, run, choosable, trigger, f"{trigger}: {short}")
        if overrun:
            return _degraded(tenant, run, choosable, trigger, f"{passing}; {short}")
        if tenant.reached(tenant.budget):
            committed = f"{tenant.committed} micros of {tenant.limit} are committed"
            return _degraded(tenant, run, choosable, trigger, f"budget: {committed}; {short}")
    if tenant.crowded:
        plan = choosable.applied(to_the_full(lowered, unasked(tenant, crowded=True)))
        if plan.modifications:
            return (
                "degrade",
                f"concurrency: {tenant.waiting} runs wait, {tenant.running} of {tenant.max_runs} run",
                plan,
                plan.cost_micros,
            )
    elif run.current and run.basis is not None and tenant.basis.richer_than(run.basis):
        return _restored(tenant, run, choosable)
    return "continue", "", None, 0


def _short(tenant: TenantView, run: RunView, least: int) -> _Judged:
    """The required nodes cannot all be paid for any more, whatever is given up."""
    reason = f"what is required needs {least} micros, and {run.available + run.reserved} can be had"
    if tenant.on_floor == "hold":
        return "hold", reason, None, 0
    if tenant.on_floor == "finish" and run.running:
        return ("continue" if run.stopped else "finish"), f"{reason}; {run.running} nodes still run", None, 0
    return "terminate", reason, None, 0


def _degraded(tenant: TenantView, run: RunView, choosable: Choosable, trigger: Trigger, reason: str, *, proven: bool = False) -> _Judged:
    """The plan of most value that fits, at what it is expected to cost if that is known; the floor always fits.

    A node that was given less in this very situation is given less again only where nothing else helps, and only once a node was refused
    or what is required would be short after the nodes that may begin next: most of what seems short by a little is not in the end.
    """
    again = run.basis == tenant.basis and bool(run.current)
    lowered = choosable.lowered()
    left = run.left(sum(node.estimate_micros for node in lowered), tenant.claimed)
    for nodes in [choosable.lowered(kept=True), lowered] if again else [lowered]:
        plan = _planned(tenant, nodes, trigger, run.available)
        if proven and run.likely(plan.cost_micros) > left:
            plan = _planned(tenant, nodes, trigger, run.affords(left))
        if plan.fits:
            break
        if again and trigger != "gate" and not _at_stake(run, choosable):
            return "continue", reason, None, 0
    if not plan.modifications:
        return "continue", reason, None, 0
    expected = run.likely(plan.cost_micros) if proven else 0
    return "degrade", reason, choosable.applied(plan), max(plan.cost_micros, expected)


def _at_stake(run: RunView, choosable: Choosable) -> bool:
    """Whether what is left would be less than the floor is expected to cost, once every node has begun that may before the next look."""
    if run.proven and 100 * run.spent > _DEAR_PERCENT * run.finished:
        return True
    lowered = choosable.lowered()
    fed = {child for node in lowered if node.estimate_micros for child in node.children}
    next_up = [node for node in lowered if node.id not in fed]
    left = run.available - sum(node.estimate_micros for node in next_up)
    return left < run.likely(floor(lowered) - floor(next_up))


def _planned(tenant: TenantView, nodes: list[NodeCost], trigger: Trigger, available: int) -> PlanDown:
    """Plan with what is allowed unasked if that is enough, else with more; at its admission a run has to fit, by whatever means."""
    plan = None
    for strategies in [EVERY] if trigger == "admission" else stages(tenant):
        plan = fitting(nodes, strategies, available)
        if plan.fits:
            break
    assert plan is not None
    return plan


def _restored(tenant: TenantView, run: RunView, choosable: Choosable) -> _Judged:
    """Give back what fits with something to spare, while neither the rate nor the projection would take it away again."""
    lower = None if tenant.budget is None else max(0, tenant.budget - LEFT_LOWER_PERCENT)
    if tenant.reached(lower):
        return "continue", "", None, 0
    nodes = choosable.raised()
    before = sum(node.estimate_micros for node in choosable.lowered())
    available = run.left(before, tenant.claimed) * 100 // (100 + _SPARE_PERCENT)
    plan = plan_down(nodes, available)
    if run.proven and run.likely(plan.cost_micros) > available:
        plan = plan_down(nodes, run.affords(available))
    if not plan.fits or plan.cost_micros <= before:
        return "continue", "", None, 0
    then = replace(run, estimate=run.estimate + plan.cost_micros - before)
    if tenant.budget is not None and _projected(tenant, then) > tenant.limit:
        return "continue", "", None, 0
    expected = run.likely(plan.cost_micros) if run.proven else 0
    reason = f"money: {run.available} micros can be had, where {before} were planned"
    return "restore", reason, choosable.restored(plan, reason), max(plan.cost_micros, expected)
