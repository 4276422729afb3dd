"""The cost agent's decision on one run: continue, degrade or terminate, and the plan. A function of its inputs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from cost.plan import NodeCost, PlanDown, floor, plan_down

Trigger = Literal["beat", "admission", "gate", "level"]

# Per mille of confidence: half is given, half is earned by completion; other runs take some away.
_LEAST, _MOST, _GIVEN, _BY_RUN, _BY_RUNS = 300, 950, 500, 100, 300


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with pending nodes, in micros. `spent` counts since its admission, of which `before` in earlier periods.

    `hold` is unspent, `reserved` is with its open executions, `estimate` is that of its plan as it is now, of which
    `finished` are done. `room` is what it may still be given by the tenant and by its own limit. `pending` holds the
    nodes that have not started, each as it is chosen now, and what ran before them at no cost.
    """

    run: str
    spent: int
    before: int
    hold: int
    reserved: int
    estimate: int
    finished: int
    room: int
    pending: Sequence[NodeCost]
    any_pending: bool = True

    @property
    def prior(self) -> int:
        """e0: a tenth of the run's estimate, so that a first small node proves nothing."""
        return self.estimate // 10

    def expected(self, estimate: int) -> int:
        """What an estimate of this run will cost, going by what its finished nodes did; rounded up."""
        seen, told = self.spent + self.prior, self.finished + self.prior
        return -(-estimate * seen // told) if told else estimate

    @property
    def projected(self) -> int:
        """What the run will have cost the period."""
        return max(self.spent + self.hold + self.reserved, self.expected(self.estimate)) - self.before

    @property
    def proven(self) -> bool:
        """Whether so much is finished that its cost says something of the rest."""
        return self.finished > 0 and self.finished >= self.prior


@dataclass(frozen=True, slots=True)
class TenantView:
    """The tenant in its tightest period. `elsewhere` is settled outside active runs, `runs` are those that are active."""

    limit: int
    committed: int
    elsewhere: int
    running: int
    max_runs: int
    waiting: int
    runs: Sequence[RunView]
    levels: tuple[int, int, int] = (80, 90, 100)
    concurrency: int | None = 80
    observe: bool = False

    def reached(self, percent: int) -> bool:
        return self.limit == 0 or self.committed * 100 >= percent * self.limit

    @property
    def crowded(self) -> bool:
        """Whether the concurrency factor is high."""
        return self.concurrency is not None and self.running * 100 >= self.concurrency * self.max_runs


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a run, and why. `left` is what its hold is to keep for the pending nodes, if it degrades."""

    action: Literal["continue", "degrade", "terminate"]
    reason: str
    flags: tuple[str, ...]
    projected: int
    confidence_permille: int
    concurrency_percent: int
    plan: PlanDown | None = None
    left: int = 0


def decide(tenant: TenantView, run: RunView, trigger: Trigger = "beat") -> Decision:
    """Decide on `run`, first terminate, then degrade, else continue (docs/money.md, "The agent").

    It is terminated if what it holds, may get back from its open executions and may still be given is less than the
    floor of what it has to run. It is degraded if its pending nodes do not fit what it holds and may be given, and the
    projection passes the limit, or the tenant is at the second level, or a node was refused; or if runs wait for one of several places.
    """
    available = run.hold + run.room
    estimate = sum(node.estimate_micros for node in run.pending)
    projected = tenant.elsewhere + sum(each.projected for each in tenant.runs)
    overrun = projected > tenant.limit
    flags = [
        name
        for name, raised in (
            ("BUDGET_ALERT", tenant.reached(tenant.levels[0])),
            ("BUDGET_CRITICAL", tenant.reached(tenant.levels[1])),
            ("CONCURRENCY_HIGH", tenant.crowded),
            ("PROJECTED_OVERRUN", overrun),
            ("OBSERVED_ONLY", tenant.observe),
        )
        if raised
    ]
    action: Literal["continue", "degrade", "terminate"] = "continue"
    reason, plan, left = "", None, 0
    least = floor(run.pending)
    if not run.any_pending:
        reason = "nothing is pending"
    elif available + run.reserved < least:
        action, reason = "terminate", f"what is required needs {least} micros, and {available + run.reserved} can be had"
        flags.append("TERMINATED_BY_COST")
    elif available < least:
        reason = f"what is required needs {least} micros: {available} are there, and {run.reserved} may come back"
    elif overrun and run.proven and max(estimate, run.expected(estimate)) > available:
        plan, left = _fitting(run, available, proven=True)
        reason = f"projection: {projected} micros of {tenant.limit}"
    elif estimate > available and (trigger in ("admission", "gate") or overrun or tenant.reached(tenant.levels[1])):
        plan, left = _fitting(run, available, proven=False)
        reason = f"{trigger}: {estimate} micros are pending, and {available} can be had"
    elif tenant.crowded and tenant.waiting and tenant.max_runs > 1:
        plan, left = _cheapest(run, generation=(tenant.limit - tenant.committed) * 100 < 5 * tenant.limit)
        reason = f"concurrency: {tenant.waiting} runs wait, {tenant.running} of {tenant.max_runs} run"
    if plan and plan.modifications:
        action = "degrade"
        flags.append("DEGRADED_MODE")
    factor = 100 * tenant.running // tenant.max_runs
    return Decision(action, reason, tuple(flags), projected, confidence(run, len(tenant.runs)), factor, plan, left)


def confidence(run: RunView, runs: int) -> int:
    """Return how far the projection is to be trusted, per mille: 300 to 950."""
    completion = 1000 * run.finished // run.estimate if run.estimate else 1000
    earned = min(_MOST, _GIVEN + (1000 - _GIVEN) * completion // 1000)
    return max(_LEAST, earned - min(_BY_RUNS, _BY_RUN * max(0, runs - 1)))


def _fitting(run: RunView, available: int, *, proven: bool) -> tuple[PlanDown, int]:
    """The plan of most value that fits, at what it is expected to cost if that is known; the floor always fits."""
    plan = plan_down(run.pending, available)
    if proven and run.expected(plan.cost_micros) > available:
        seen, told = run.spent + run.prior, run.finished + run.prior
        plan = plan_down(run.pending, available * told // seen)
    expected = run.expected(plan.cost_micros) if proven else 0
    return plan, max(plan.cost_micros, expected)


def _cheapest(run: RunView, *, generation: bool) -> tuple[PlanDown, int]:
    """Every strategy that concurrency allows unasked, to the full; generation parameters only when little money remains."""
    allowed: Final = ("retrieval", "variant", "generation") if generation else ("retrieval", "variant")
    nodes = [replace(node, variants=[each for each in node.variants if each.kind in allowed]) for node in run.pending]
    plan = plan_down(nodes, 0)
    return plan, plan.cost_micros
