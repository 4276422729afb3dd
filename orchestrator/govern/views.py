"""From what Redis and the record say to what the cost agent looks at. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from cost.agent import Basis, OnFloor, RunView, TenantView
from cost.period import MS_PER_DAY, day_of, first_of_month, name_of
from cost.plan import AS_IS, NodeCost

from .costs import RunCosts
from .survey import RunRow, Survey, TenantRow

PENDING = ("pending", "due")
RAN = ("succeeded", "failed", "timed_out")
NEVER_RAN = ("skipped", "cancelled", "upstream_failed")


@dataclass(frozen=True)
class Period:
    """The tighter one of day and month: its limit and what is charged and reserved in it, micros, and when it began, ms."""

    limit: int
    settled: int
    reserved: int
    room: int
    starts_ms: int


def tightest(tenant: TenantRow) -> Period:
    """Return the period that leaves the tenant the least, as the scripts do; `room` is what that is, never below 0."""
    promised = sum(int(tenant.policy.get(name) or 0) for name in ("held", "reserved"))
    day = day_of(tenant.now_ms)

    def period(limit: int, charged: tuple[int, int], first: int) -> Period:
        return Period(limit, *charged, max(0, limit - charged[0] - promised), first * MS_PER_DAY)

    limit = int(tenant.policy.get("limit_day") or 0)
    found = period(limit, tenant.day, day)
    if tenant.policy.get("limit_month"):
        most = int(tenant.policy["limit_month"])
        if most - tenant.month[0] < limit - tenant.day[0]:
            found = period(most, tenant.month, first_of_month(day))
    return found


def basis(tenant: TenantRow) -> Basis:
    """Return the situation of now: the day, the limits, the highest level that is entered."""
    day = name_of(day_of(tenant.now_ms))
    level = 0
    for row in tenant.levels.values():
        period, held, _ = row.split("|", 2)
        if day.startswith(period):
            level = max(level, held.rfind("1") + 1)
    month = tenant.policy.get("limit_month")
    return Basis(day, int(tenant.policy.get("limit_day") or 0), int(month) if month else None, level)


def run_view(survey: Survey, rg: str, costs: RunCosts, period: Period, pending: Iterable[NodeCost] = ()) -> RunView:
    """Return a run as the agent sees it. Its nodes are counted as they are chosen now; `pending` are those that wait."""
    row, states, verdicts = survey.runs[rg], survey.states[rg], survey.verdicts[rg]
    estimate = finished = running = 0
    any_pending = False
    current: dict[str, str] = {}
    for node, cost in costs.costs.items():
        state = states.get(node, "pending")
        if state in NEVER_RAN:
            continue
        amount = _chosen(cost, verdicts.get(node, ""))
        estimate += amount
        finished += amount if state in RAN else 0
        running += state == "running"
        if state in PENDING:
            any_pending = True
            if verdicts.get(node):
                current[node] = verdicts[node]
    last = row.last.get("basis")
    before = _before(survey.executions.get(rg, {}), period.starts_ms // MS_PER_DAY)
    room = period.room
    if row.budget is not None:
        room = min(room, max(0, row.budget - row.spent - row.reserved - row.hold))
    return RunView(
        run=row.run_id,
        spent=row.spent,
        before=before,
        hold=row.hold,
        reserved=row.reserved,
        estimate=estimate,
        finished=finished,
        room=room,
        pending=tuple(pending),
        any_pending=any_pending,
        current=current,
        basis=Basis(*last) if last else None,
        running=running,
        stopped=_stopped(row),
    )


def waiting(survey: Survey, rg: str, costs: RunCosts) -> list[NodeCost]:
    """Return the nodes of a run that have not begun, at their full quality; those that something else feeds as well say so."""
    states = survey.states[rg]
    found, pinned = [], counted_on(costs, states)
    for node, cost in costs.costs.items():
        if states.get(node, "pending") in PENDING:
            fed = any(states.get(parent) in ("running", "succeeded") for parent in costs.parents[node])
            if fed or node in pinned:
                cost = replace(cost, fed=cost.fed or fed, required=cost.required or node in pinned)
            found.append(cost)
    return found


def counted_on(costs: RunCosts, states: Mapping[str, str]) -> set[str]:
    """Return the optional nodes without which too few successes would be left for an `at_least` behind them, as things stand: one whose
    failure was allowed for is replaced by the next.
    """
    found: set[str] = set()
    for node, least in costs.least.items():
        if states.get(node, "pending") not in PENDING:
            continue
        good, spare = 0, []
        for parent in costs.parents[node]:
            state, cost = states.get(parent, "pending"), costs.costs.get(parent)
            if state in ("running", "succeeded") or (state in PENDING and (cost is None or cost.required)):
                good += 1
            elif state in PENDING:
                spare.append(parent)
        found.update(spare[: max(0, least - good)])
    return found


def tenant_view(survey: Survey, rg: str, views: Mapping[str, RunView], period: Period) -> TenantView:
    """Return the tenant as the agent sees it when it decides on the run `rg`; `views` are all of its active runs."""
    others = [each for other, each in views.items() if other != rg]
    return TenantView(
        limit=period.limit,
        committed=period.settled + period.reserved,
        elsewhere=period.settled - sum(each.spent - each.before for each in views.values()),
        others=sum(each.projected for each in others),
        others_likely=sum(each.likely_total for each in others),
        active=len(views),
        **tenant_terms(survey.tenant),
    )


def tenant_terms(tenant: TenantRow) -> dict[str, Any]:
    """Return what the agent goes by of a tenant beside its money: places, the situation of now, and the policy, by fields of TenantView."""
    policy = tenant.policy
    return {
        "running": int(policy.get("running") or 0),
        "max_runs": int(policy.get("max_runs") or 0),
        "waiting": tenant.waiting,
        "basis": basis(tenant),
        "levels": (_percent(policy, "warn", 80) or 0, _percent(policy, "critical", 90) or 0, _percent(policy, "exceeded", 100) or 0),
        "budget": _percent(policy, "degrade_budget", 90),
        "concurrency": _percent(policy, "degrade_concurrency", 80),
        "on_floor": _on_floor(policy.get("on_floor")),
        "observe": tenant.enforcement == "observe",
    }


def is_quiet(tenant: TenantRow, row: RunRow) -> bool:
    """Whether nothing can trip a decision on a run, going by its money alone: all it may ever ask for could be had.

    What is pending costs at most the run's estimate; where the finished nodes were dearer than estimated it is corrected by at most
    (spent + e0) / e0, and e0 is at least a twentieth of the estimate.
    """
    if row.judged or row.open or row.terminated or row.waits or row.grown or row.estimate < 100:
        return False
    crowded = tenant.waiting > 0 and int(tenant.policy.get("max_runs") or 0) > 1
    room = tightest(tenant).room
    if row.budget is not None:
        room = min(room, max(0, row.budget - row.spent - row.reserved - row.hold))
    return not crowded and row.hold + room >= row.estimate + 20 * row.spent + 20


def kept(survey: Survey, rg: str, costs: RunCosts, available: int) -> list[str]:
    """Return what still runs of a run that is terminated: joins that run whatever became of their parents, and what follows from these
    alone, as far as `available` micros go; ties by id.
    """
    states, verdicts = survey.states[rg], survey.verdicts[rg]
    left = {node for node in costs.costs if states.get(node, "pending") in PENDING}
    found: list[str] = []
    among: set[str] = set()
    for node in _ordered(left, costs.parents):
        unfinished = [parent for parent in costs.parents[node] if parent in left]
        follows = bool(unfinished) and all(parent in among for parent in unfinished)
        amount = _chosen(costs.costs[node], verdicts.get(node, ""))
        if (node in costs.tolerant or follows) and amount <= available:
            available -= amount
            found.append(node)
            among.add(node)
    return found


def children_first(nodes: Iterable[str], parents: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return nodes so that what depends on another comes before it: none of them is said to have failed by another's fault."""
    return _ordered(set(nodes), parents)[::-1]


def _ordered(nodes: set[str], parents: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Parents first, ties by id."""
    depth: dict[str, int] = {}
    for first in nodes:
        path = [first]
        while path:
            node = path[-1]
            above = [parent for parent in parents[node] if parent in nodes]
            unknown = [parent for parent in above if parent not in depth]
            if unknown and node not in depth:
                path += unknown
                continue
            depth.setdefault(node, 1 + max((depth[parent] for parent in above), default=0))
            path.pop()
    return sorted(nodes, key=lambda node: (depth[node], node))


def _chosen(cost: NodeCost, verdict: str) -> int:
    if verdict in ("", AS_IS):
        return cost.estimate_micros
    return next((each.estimate_micros for each in cost.variants if each.name == verdict), cost.estimate_micros)


def _stopped(row: RunRow) -> Literal["", "hold", "finish"]:
    # Whoever ended the pause has approved it.
    return cast('Literal["hold", "finish"]', row.waits) if row.waits and row.paused else ""


def _before(executions: Mapping[str, str], first_day: int) -> int:
    """Return what executions were charged on days before `first_day`: the parts of each are filled oldest first."""
    total = 0
    for text in executions.values():
        state, _, parts, actual, _, _ = text.split("|")
        if state in ("settled", "waste"):
            days = [(int(day), int(amount)) for day, _, amount in (part.partition("=") for part in parts.split(",") if part)]
            left = int(actual)
            for at, (day, amount) in enumerate(days):
                taken = left if at == len(days) - 1 else min(left, amount)
                total += taken if day < first_day else 0
                left -= taken
    return total


def _percent(policy: Mapping[str, Any], name: str, default: int) -> int | None:
    """Return a threshold; one that is there and empty is switched off."""
    text = policy.get(name)
    return default if text is None else int(text) if text else None


def _on_floor(text: str | None) -> OnFloor:
    return cast("OnFloor", text) if text in get_args(OnFloor) else "terminate"
