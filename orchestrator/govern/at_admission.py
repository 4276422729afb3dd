"""The decision on a run that was admitted with less than its estimate: it is planned down before its first node."""

from __future__ import annotations

from collections.abc import Mapping

from cost.agent import Inputs, RunView, TenantView, decide_on, solver
from orchestrator import keys
from orchestrator.kernel import Kernel
from orchestrator.submission import Submission

from .made import Made
from .order import Order, carry_out
from .survey import TenantRow, look_at
from .views import tenant_terms, tightest


def plan_down(kernel: Kernel, run_id: str, generation: int, tenant: str, submission: Submission, hold: int) -> None:
    """Decide what of a loaded run fits its hold, and apply that. Repeated, it goes on with what was decided first.

    Raises Unavailable and Fenced; nothing has been launched then.
    """
    rg = f"{run_id}.{generation}"
    status = kernel.link.read("HGET", keys.of_run("run", rg), "status")
    if status != "loading":
        return
    number, decision, plan = kernel.link.read("HMGET", keys.of_run("decision", rg), "n", "open", "plan")
    if number is None:
        row = look_at(kernel.link, [tenant])[tenant]
        inputs = admission_inputs(row, run_id, submission, hold)
        made = Made(rg, 1, inputs, decide_on(inputs))
        order, basis = Order.of(made.decision, "admission"), inputs.tenant.basis
        if kernel.state.decide(run_id, generation, 1, made.mark(basis), "", order.to_json(), made.event(kernel, tenant, basis)):
            carry_out(kernel, rg, tenant, made.name, order, publish=False)
            return
        decision, plan = kernel.link.read("HMGET", keys.of_run("decision", rg), "open", "plan")
    if decision:
        carry_out(kernel, rg, tenant, decision, Order.from_json(plan), publish=False)


def admission_inputs(row: TenantRow, run_id: str, submission: Submission, hold: int) -> Inputs:
    """Return what the decision at an admission is made from. Pure.

    What could be held is held: there is no room beside the hold. Other runs are taken to cost what they hold and have reserved.
    """
    policy: Mapping[str, str] = row.policy
    period = tightest(row)
    promised = sum(int(policy.get(name) or 0) for name in ("held", "reserved"))
    tenant = TenantView(
        limit=period.limit,
        committed=period.settled + period.reserved,
        elsewhere=period.settled,
        others=max(0, promised - hold),
        active=int(policy.get("running") or 0),
        **tenant_terms(row),
    )
    run = RunView(
        run=run_id,
        spent=0,
        before=0,
        hold=hold,
        reserved=0,
        estimate=submission.estimate_micros,
        finished=0,
        room=0,
        pending=submission.costs,
        any_pending=bool(submission.costs),
    )
    return Inputs(tenant, run, "admission", int(policy.get("version") or 0), solver())
