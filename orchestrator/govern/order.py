"""What is to be done for a decision, written down with it: whoever finds it half done does the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cost.agent import Decision
from cost.plan import AS_IS, SKIP
from orchestrator import keys
from orchestrator.kernel import Kernel
from orchestrator.pieces import pieces
from orchestrator.unrun import show_unrun
from tenancy import keys as transport
from tenancy.transport.queue import Queue

BY = "cost-agent"
"""By whom runs are paused that wait for an approval, or for what runs of them."""


@dataclass(frozen=True)
class Order:
    """The changes of one decision; every step may be repeated, and none touches what runs or has ended.

    skip, revoke: nodes that get an outcome, revoked ones children first; judge: node to variant, '' for as it is. left: micros that
    the hold is to keep, None where it stays; raised: it may rise to that. pause: what becomes of the run's own pause.
    modifications: as events say them.
    """

    trigger: str
    reason: str
    skip: tuple[str, ...] = ()
    judge: Mapping[str, str] = field(default_factory=dict)
    revoke: tuple[str, ...] = ()
    left: int | None = None
    raised: bool = False
    pause: Literal["", "pause", "resume"] = ""
    modifications: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, decision: Decision, trigger: str) -> Order:
        """Return what the plan of a decision asks for."""
        changes = {m.node: m.change for m in decision.plan.modifications} if decision.plan else {}
        return cls(
            trigger=trigger,
            reason=decision.reason,
            skip=tuple(node for node, change in changes.items() if change == SKIP),
            judge={node: "" if change == AS_IS else change for node, change in changes.items() if change != SKIP},
            left=decision.left if decision.plan else None,
            raised=decision.action in ("restore", "degrade"),
            modifications=tuple(decision.modifications()),
        )

    def to_json(self) -> str:
        """Return it as it is stored."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Read what `to_json` wrote."""
        row = json.loads(text)
        return cls(**{**row, **{name: tuple(row[name]) for name in ("skip", "revoke", "modifications")}})


def carry_out(kernel: Kernel, rg: str, tenant: str, decision: str, order: Order, *, publish: bool = True) -> None:
    """Do all of an order, or what is left of it, and say so once. Raises Unavailable and Fenced; the next pass goes on.

    publish: put in line what became due by it; whoever starts the run does that himself.
    """
    run_id, _, generation = rg.rpartition(".")
    run = run_id, int(generation)
    queue, scope = Queue(kernel.link), f"run:{rg}"
    if order.pause == "pause":
        queue.pause(scope, BY, order.reason)
        kernel.state.stand_by(*run)
    due: set[str] = set()
    why = "given up at admission: the budget is short" if order.trigger == "admission" else f"given up: {order.reason}"
    for piece in pieces(order.skip):
        due.update(kernel.state.skip(*run, why, piece, decision)[1:])
    for pairs in pieces(order.judge.items()):
        kernel.state.judge(*run, decision, dict(pairs))
    due |= revoke(kernel, rg, order.revoke, order.reason, decision)
    if order.skip or order.revoke:
        due |= kernel.finish_cascade(*run)
    if order.pause == "resume":
        while queue.resume(scope, BY, order.reason):
            pass
        kernel.state.stand_by(*run)
    if publish:
        kernel.launcher.publish(*run, tenant, due)
    event = {"t": "decision.applied", "tenant": tenant, "run": run_id, "gen": run[1], "decision": decision, "trigger": order.trigger}
    told = json.dumps({**event, "modifications": list(order.modifications)}, separators=(",", ":"), ensure_ascii=False)
    moved = kernel.state.conclude(*run, decision, order.left, told, raised=order.raised)
    show_unrun(kernel, rg, (*order.skip, *order.revoke), order.reason)
    if moved is not None and moved < 0 and kernel.link.read("EXISTS", transport.WAITING):
        kernel.call_admission()


def revoke(kernel: Kernel, rg: str, nodes: Iterable[str], reason: str, decision: str) -> set[str]:
    """Cancel nodes that have not begun, children first; return what became due by that."""
    run_id, _, generation = rg.rpartition(".")
    due: set[str] = set()
    for piece in pieces(nodes):
        due.update(kernel.state.revoke(run_id, int(generation), "cancelled", reason, piece, decision)[2:])
    return due


def left_to_revoke(kernel: Kernel, rg: str, kept: set[str]) -> list[str]:
    """Return the nodes of a terminated run that wait, or whose worker may be gone, but for those that run all the same."""
    states: dict[str, str] = kernel.link.read("HGETALL", keys.of_run("state", rg))
    # What a kept node became is kept with it.
    under = tuple(f"{node}." for node in kept)
    left = (node for node, state in states.items() if state in ("pending", "due", "running") and node not in kept)
    return [node for node in left if not node.startswith(under)] if under else list(left)
