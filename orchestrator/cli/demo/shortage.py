"""A shortage: one of the tenants has less money than its project is estimated at, and what the platform makes of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cost.money import format_units
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.registry import registry
from orchestrator.store import read
from orchestrator.submission import Submission

from .scene import Scene

if TYPE_CHECKING:
    from collections.abc import Mapping

PERCENT = 62
"""How much of the estimate there is. Two cheaper variants leave some of it over for CPU seconds, of which a busy machine takes more."""

LINES = 3
"""How far the demo walks back."""

TOP_K = 5


@dataclass(frozen=True)
class Shortage:
    """What the tenant may spend beside what it had spent before, and what its project is estimated at; micros."""

    tenant: str
    budget_micros: int
    estimate_micros: int


@contextmanager
def short_of_money(scene: Scene, tenant: str, graph: Graph) -> Iterator[Shortage]:
    """Leave a tenant so much for today as `PERCENT` of what a graph is estimated at; afterwards it has what it had."""
    estimate = Submission.of(graph.resolved(registry), scene.client.settings).estimate_micros
    before, used = read.get_tenant(scene.client.engine, tenant).policy, scene.client.tenants.usage(tenant)
    budget = estimate * PERCENT // 100
    limit = used.exposure_micros + budget
    scene.client.tenants.update(tenant, limit_per_day_micros=limit, reason="a tight month", by="demo")
    try:
        yield Shortage(tenant, budget, estimate)
    finally:
        scene.client.tenants.update(tenant, limit_per_day_micros=before.limit_per_day_micros, reason="the demo is over", by="demo")


def announce(scene: Scene, shortage: Shortage, currency: str) -> None:
    """Say how much there is."""
    budget, estimate = format_units(shortage.budget_micros), format_units(shortage.estimate_micros)
    scene.board.say(f"{shortage.tenant} has {budget} {currency} for a project that is estimated at {estimate}: {PERCENT} %")


def tell(scene: Scene, shortage: Shortage, run: RunHandle, told: dict[str, Any]) -> bool:
    """Print what was given up, why, and what that did to recall; return whether all that was required is done, inside the budget."""
    board, nodes = scene.board, {node.id: node for node in read.get_nodes(scene.client.engine, run.run_id)}
    cost, spent = sum(node.cost_micros for node in nodes.values()), format_units(shortage.budget_micros, 6)
    done = sum(node.required and node.outcome == "succeeded" for node in nodes.values())
    required = sum(node.required for node in nodes.values())
    changed = {name: node for name, node in nodes.items() if node.verdict or node.outcome == "skipped"}
    given_up = {name: "skipped" if node.outcome == "skipped" else f"as {node.verdict!r}" for name, node in changed.items()}
    board.say(f"  given up: {', '.join(f'{name} {how}' for name, how in given_up.items()) or 'nothing'}", "     ")
    board.say(f"  {done} of {required} required nodes done, for {format_units(cost, 6)} of {spent}", "     ")
    steps = run.explain(next(iter(changed)))[:LINES] if changed else []
    for number, step in enumerate(steps):
        board.say(f"  {'<- ' if number else ''}{step.text}", "     ")
    recall = _recalls(scene, run, nodes)
    found, in_full = recall["recall"], recall["recall_in_full"]
    board.say(f"  recall@{TOP_K} of what it retrieved is {found:.2f}, and {in_full:.2f} with all the money", "     ")
    told |= {"budget_micros": shortage.budget_micros, "estimate_micros": shortage.estimate_micros, "given_up": given_up, **recall}
    told |= {"explain": [step.text for step in steps], "required_done": done, "required": required}
    return bool(given_up) and done == required and cost <= shortage.budget_micros


def _recalls(scene: Scene, run: RunHandle, nodes: Mapping[str, read.NodeView]) -> dict[str, float]:
    """Measure how well passages are found as this run found them, and as it would have with all the money, by the same questions."""
    documents, found = scene.documents, run.result("index")
    # The run's own evaluation may have been given less as well; what counts is how its answers were retrieved.
    few = nodes["retrieve"].verdict is not None and nodes["retrieve"].verdict != ""
    as_it_ran = documents.evaluate(found, top_k=3 if few else TOP_K, rerank=not few)
    in_full = documents.evaluate(documents.index(found["chunks"], documents.embed(found["chunks"])), top_k=TOP_K)
    return {"recall": as_it_ran["recall"], "recall_in_full": in_full["recall"]}
