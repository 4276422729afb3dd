"""The pass of the cost agent over tenants and their runs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple, cast

from sqlalchemy import Engine

from cost.agent import Decision, Inputs, RunView, Trigger, decide_on, solver
from cost.period import day_of
from orchestrator import keys
from orchestrator.kernel import Kernel
from orchestrator.pauses import AGENT
from orchestrator.schedules.lease import Lease
from orchestrator.state import ROWS_MAX
from tenancy import keys as transport
from tenancy.errors import Fenced, Unavailable

from .costs import CostBook, RunCosts
from .made import Made
from .order import Order, carry_out, left_to_revoke, revoke
from .survey import RunRow, Survey, TenantRow, kept, live_runs, look_at, survey
from .views import PENDING, Period, children_first, is_quiet, run_view, tenant_view, tightest, waiting
from .views import kept as kept_of

LEASE_MS: Final = 5_000
"""How long nobody else decides for all tenants after an agent died."""

DECISIONS_AT_ONCE: Final = 100
"""Decisions about a tenant's runs in one pass; the next one goes on."""

log = logging.getLogger("headgate.agent")


@dataclass
class Governed:
    """What a pass did: decisions made, decisions completed that somebody else had left half applied."""

    decided: int = 0
    completed: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))


class Governor:
    """Safe to run at any time, several at once: a run has one decision at a time, stored before anything of it is applied.

    Raises Unavailable when Redis or the record is away, Fenced between two epochs; the next pass goes on.
    """

    def __init__(self, kernel: Kernel, engine: Engine) -> None:
        self.kernel = kernel
        self.costs = CostBook(engine, kernel.settings)
        self._seen: dict[str, tuple[object, ...]] = {}

    def tick(self, run: str = "", trigger: str = "beat", cause: str = "", tenant: str = "") -> Governed:
        """Look at every tenant, or at one or at that of a run (`{run}.{generation}`), and decide. Say what was done.

        trigger: beat; gate: the money did not cover the node `cause` of the run; level: the execution `cause`, or a change of the policy,
        made the tenant enter one.
        """
        governed = Governed()
        if self.kernel.link.read("SISMEMBER", transport.PAUSED, AGENT):
            return governed
        rows = live_runs(self.kernel.link)
        one = bool(run or tenant)
        if one:
            tenant = tenant or self.kernel.link.read("HGET", keys.of_run("run", run), "tenant")
            rows = {name: row for name, row in rows.items() if row.tenant == tenant}
        # Whoever comes next does it, also while the lease of one that was killed lasts.
        governed.completed = sum(self._complete(row) for row in rows.values() if row.in_hand)
        if one:
            self._pass(governed, rows, run, trigger, cause)
            return governed
        lease = Lease(self.kernel.link, "agent", LEASE_MS)
        if not lease.hold():
            return governed
        try:
            self._seen = {rg: seen for rg, seen in self._seen.items() if rg in rows}
            self._pass(governed, rows, "", trigger, cause, lease)
        finally:
            with suppress(Unavailable, Fenced):
                lease.give_up()
        return governed

    def _pass(self, governed: Governed, rows: Mapping[str, RunRow], run: str, trigger: str, cause: str, lease: Lease | None = None) -> None:
        of_tenant: dict[str, list[RunRow]] = defaultdict(list)
        for row in rows.values():
            of_tenant[row.tenant].append(row)
        found = look_at(self.kernel.link, sorted(of_tenant))
        for tenant, own in of_tenant.items():
            if lease is not None and not lease.hold():
                return
            if found[tenant].enforcement != "off":
                wanted = [row.rg for row in own if row.decidable and (run or self._may_change(found[tenant], row))]
                governed.decided += self._decide(tenant, own, wanted, run, trigger, cause)

    # -- what is left half done ---------------------------------------------------------------------------------------------

    def _complete(self, row: RunRow) -> int:
        """Do the rest of a decision that somebody made, and of a run that is terminated what came back to wait."""
        if row.open:
            carry_out(self.kernel, row.rg, row.tenant, row.open, Order.from_json(row.plan))
            return 1
        back = left_to_revoke(self.kernel, row.rg, kept(self.kernel.link, row.rg))
        due = revoke(self.kernel, row.rg, back, f"terminated by cost: decision {row.terminated}", row.terminated)
        if due:
            self.kernel.launcher.publish(row.run_id, row.generation, row.tenant, due)
        return 0

    # -- deciding -----------------------------------------------------------------------------------------------------------

    def _may_change(self, tenant: TenantRow, row: RunRow) -> bool:
        """Whether a decision could be another than the last time: cheap, for the many runs of which nothing changes."""
        return not is_quiet(tenant, row) and self._seen.get(row.rg) != _seen(tenant, row)

    def _decide(self, tenant: str, own: list[RunRow], wanted: list[str], run: str, trigger: str, cause: str) -> int:
        """Decide on some of a tenant's runs. What is applied changes what there is for the others, so all is read again after it."""
        decided, left = 0, sorted(wanted, key=lambda rg: (rg != run, rg))
        while left and decided < DECISIONS_AT_ONCE:
            looked = self._look(tenant, own)
            for rg in tuple(left):
                left.remove(rg)
                # A refusal is about the run whose node it is; the others are looked at as ever.
                own_trigger = trigger if trigger != "gate" or rg == run else "beat"
                if self._settle_on(looked, rg, cast("Trigger", own_trigger), cause if own_trigger == trigger else ""):
                    decided += 1
                    break
        return decided

    def _look(self, tenant: str, own: list[RunRow]) -> _Looked:
        seen = survey(self.kernel.link, tenant, own)
        read = {rg: self.costs.grown(row.run_id, row.generation, seen.states[rg]) for rg, row in seen.runs.items()}
        costs = {rg: each for rg, each in read.items() if each is not None}
        period = tightest(seen.tenant)
        return _Looked(seen, costs, period, {rg: run_view(seen, rg, each, period) for rg, each in costs.items()})

    def _settle_on(self, looked: _Looked, rg: str, trigger: Trigger, cause: str) -> bool:
        """Decide on one run, store that and apply it; whether anything changed by it."""
        row = looked.survey.runs.get(rg)
        if row is None or rg not in looked.costs or not row.decidable or row.open:
            return False
        view = replace(looked.views[rg], pending=tuple(waiting(looked.survey, rg, looked.costs[rg])))
        policy_version = int(looked.survey.tenant.policy.get("version") or 0)
        tenant = tenant_view(looked.survey, rg, looked.views, looked.period)
        inputs = Inputs(tenant, view, trigger, policy_version, solver())
        decision = decide_on(inputs)
        wanted = _wanted(decision, looked, rg, trigger)
        before = row.last
        same = (decision.action, list(decision.flags)) == (before.get("action", "continue"), before.get("flags", []))
        if (wanted is None or tenant.observe) and same:
            self._seen[rg] = _seen(looked.survey.tenant, row)
            return False
        done = None if tenant.observe else wanted
        made = Made(rg, row.decisions + 1, inputs, decision, cause)
        basis = tenant.basis if done else before.get("basis")
        event = made.event(self.kernel, row.tenant, basis, done.kept if done else ())
        told = (done.fence, done.order.to_json(), event, done.kept) if done else ("", "", event, ())
        if not self.kernel.state.decide(row.run_id, row.generation, made.number, made.mark(basis), *told):
            return False
        subject = {"tenant": row.tenant, "run": row.run_id, "generation": row.generation, "decision": made.name}
        log.info("decided: %s, %s%s", decision.action, decision.reason, " (observed only)" if tenant.observe else "", extra=subject)
        if done:
            carry_out(self.kernel, rg, row.tenant, made.name, done.order)
        return done is not None


@dataclass(frozen=True)
class _Looked:
    """A tenant at one moment, with what its runs cost and look like."""

    survey: Survey
    costs: Mapping[str, RunCosts]
    period: Period
    views: Mapping[str, RunView]


class _Wanted(NamedTuple):
    """What is to be done for a decision, the fence that is set with it, and what is kept of a run that is terminated."""

    order: Order
    fence: str = ""
    kept: tuple[str, ...] = ()


def _wanted(decision: Decision, looked: _Looked, rg: str, trigger: str) -> _Wanted | None:
    """Return what a decision asks for; None where nothing changes."""
    order, row = Order.of(decision, trigger), looked.survey.runs[rg]
    match decision.action:
        case "terminate":
            costs, states = looked.costs[rg], looked.survey.states[rg]
            stays = kept_of(looked.survey, rg, costs, looked.views[rg].available)[:ROWS_MAX]
            nodes = [node for node, state in states.items() if state in PENDING and node not in stays]
            nodes = children_first(nodes, costs.parents)
            told = [_revoked(node, decision.reason, costs) for node in nodes]
            order = replace(order, revoke=tuple(nodes), modifications=(*order.modifications, *told))
            if row.waits and row.paused:
                order = replace(order, pause="resume")
            return _Wanted(order, "terminated", tuple(stays))
        case "hold" | "finish":
            return _Wanted(replace(order, pause="pause"), decision.action)
        case "restore" if looked.views[rg].stopped:
            return _Wanted(replace(order, pause="resume"), "none")
    return _Wanted(order) if order.skip or order.judge else None


def _revoked(node: str, reason: str, costs: RunCosts) -> dict[str, str]:
    return {"type": "revoke", "node": node, "change": "cancelled", "reason": reason, "saving": _saving(costs, node)}


def _seen(tenant: TenantRow, row: RunRow) -> tuple[object, ...]:
    """Return all that a decision about a run depends on but its nodes, which do not change without its money or `left`."""
    counters = {name: value for name, value in tenant.policy.items() if name != "run_ms"}
    levels = tuple(sorted(tenant.levels.items()))
    return day_of(tenant.now_ms), tuple(sorted(counters.items())), tenant.day, tenant.month, levels, tenant.waiting, row


def _saving(costs: RunCosts, node: str) -> str:
    cost = costs.costs.get(node)
    return str(cost.estimate_micros if cost else 0)
