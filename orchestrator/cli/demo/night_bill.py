"""The night of the bill: 32 claimants want a share of one budget at once, here and by the recipe that checks, works and then charges."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from ulid import ULID

from cost.money import format_units
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from tenancy.errors import Refused

from .board import Draw
from .check_then_charge import claim
from .scene import Scene

CLAIMANTS = 32
COST = 10_000
"""Micros that each claimant's work costs at most, and that are set aside for it."""
CPU = 100
"""Of these, for the CPU time of each of its nodes, which is charged as it was."""
LIMIT = 10 * COST
WORK_S = 0.2
PATIENCE_S = 20.0
LOOK_S = 0.05

_DATABASE = 2
"""Of the same Redis server; stock Celery has 1."""
T = TypeVar("T")

_HEADINGS = ("", "claimants", "spent of the budget")


@dataclass(frozen=True)
class Bill:
    """How a side fared: claimants whose work was done and that were refused, micros spent, and the most that was ever committed."""

    done: int
    refused: int
    spent: int
    most: int

    @property
    def overspent(self) -> int:
        """Micros beyond the budget; 0 when it was kept."""
        return max(0, max(self.spent, self.most) - LIMIT)


def show(scene: Scene) -> bool:
    """Play the night on one side after the other; return whether our budget was kept and used up."""
    board = scene.board
    cost, limit = format_units(COST, 2), format_units(LIMIT, 2)
    board.say(
        f"{CLAIMANTS} claimants at once, each wants {cost} of a budget of {limit}: as runs of a tenant, submitted by as many threads; then "
        f"by the common recipe, in as many threads on the same Redis server, which looks at what is spent, works {WORK_S:g} s and charges."
    )
    rows = [["headgate", "", ""], ["check, then charge", "", ""]]
    with board.live() as draw:
        ours = _ours(scene, rows, draw)
        rows[0][1:] = _cells(ours)
        draw(_HEADINGS, rows)
        recipe = _recipe(scene)
        rows[1][1:] = _cells(recipe)
        draw(_HEADINGS, rows)
    board.say(verdict(ours, recipe))
    scene.figures["bill_night"] = {
        "claimants": CLAIMANTS,
        "limit_micros": LIMIT,
        "cost_micros": COST,
        "headgate": _figures(ours),
        "check_then_charge": _figures(recipe),
        "verdict": verdict(ours, recipe),
    }
    return ours.overspent == 0 and ours.done == LIMIT // COST and ours.refused == CLAIMANTS - ours.done


def _ours(scene: Scene, rows: list[list[str]], draw: Draw) -> Bill:
    tenant = f"dune-{str(ULID())[-8:].lower()}"  # of this night alone: a home may see many
    scene.client.tenants.create(tenant, limit_per_day_micros=LIMIT, max_concurrent_runs=CLAIMANTS)
    graph = claim_of(COST, WORK_S)

    def submit() -> RunHandle | None:
        try:
            return scene.client.submit(graph, tenant=tenant)
        except Refused:
            return None

    runs: list[RunHandle | None] = []
    submitting = threading.Thread(target=lambda: runs.extend(_at_once(submit)))
    submitting.start()
    most = 0
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        usage = scene.client.tenants.usage(tenant)
        most = max(most, usage.settled_micros + usage.reserved_micros)
        rows[0][1:] = [f"{usage.running_runs} at work …", f"{_shown(usage.settled_micros)} of {_shown(LIMIT)}"]
        draw(_HEADINGS, rows)
        if not submitting.is_alive() and all(run is None or run.status == "ended" for run in runs):
            break
        time.sleep(LOOK_S)
    submitting.join()
    spent = scene.client.tenants.usage(tenant).settled_micros
    done = sum(run is not None and run.outcome == "succeeded" for run in runs)
    return Bill(done, sum(run is None for run in runs), spent, max(most, spent))


def _recipe(scene: Scene) -> Bill:
    server = scene.stack.redis
    assert server is not None, "the demo's stack has a Redis of its own"
    with redis.Redis(unix_socket_path=str(server.socket), db=_DATABASE, decode_responses=True) as connection:
        connection.delete("spent")
        answers = _at_once(lambda: claim(connection, COST, LIMIT, lambda: time.sleep(WORK_S)))
        spent = int(str(connection.get("spent") or 0))
    return Bill(sum(answers), len(answers) - sum(answers), spent, spent)


def _at_once(call: Callable[[], T]) -> list[T]:
    """Return what `CLAIMANTS` threads got that all began at the same moment."""
    start = threading.Barrier(CLAIMANTS)

    def claimant(_number: int) -> T:
        start.wait()
        return call()

    with ThreadPoolExecutor(CLAIMANTS) as pool:
        return list(pool.map(claimant, range(CLAIMANTS)))


def verdict(ours: Bill, recipe: Bill) -> str:
    """Return in one sentence who kept the budget: won, lost, or not shown."""
    if ours.overspent:
        return f"lost: headgate spent {_units(ours)}, {_shown(ours.overspent)} too much"
    mine = f"headgate spent {_units(ours)}"
    if not recipe.overspent:
        return f"not shown: {mine}, and check-then-charge {_units(recipe)}: no two claimants looked at once"
    return f"won: {mine}; check-then-charge {_units(recipe)}, {_shown(recipe.overspent)} too much"


def _units(bill: Bill) -> str:
    return f"{_shown(bill.spent)} of {_shown(LIMIT)}"


def _shown(micros: int) -> str:
    return format_units(micros, 6)


def _cells(bill: Bill) -> list[str]:
    mark = "✗" if bill.overspent else "✓"
    return [f"{bill.done} served, {bill.refused} refused", f"{_units(bill)} {mark}"]


def _figures(bill: Bill) -> dict[str, Any]:
    return {
        "served": bill.done,
        "refused": bill.refused,
        "spent_micros": bill.spent,
        "committed_at_most_micros": bill.most,
        "overspent_micros": bill.overspent,
    }


def claim_of(micros: int, seconds: float) -> Graph:
    """Return a claimant's work: `seconds` of it, and then its bill; both together are estimated at `micros`."""
    work = {"id": "work", "task": "synthetic.sleep", "params": {"seconds": seconds}, "estimate": {"compute": CPU}}
    llm = micros - 2 * CPU
    params, estimate = {"category": "llm", "micros": llm}, {"llm": llm, "compute": CPU}
    bill = {"id": "bill", "task": "synthetic.spend", "params": params, "estimate": estimate, "after": ["work"]}
    return Graph.parse({"name": "claim", "nodes": [work, bill]})
