"""The next generation of a run that has ended: it adopts what succeeded, and runs the rest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import select

from orchestrator.admission import Admission
from orchestrator.recorder.ask import ask
from orchestrator.results import OBJECT_MARK
from orchestrator.store import tables as t
from orchestrator.store.expansions import returned
from orchestrator.store.read import open_record
from tenancy.errors import Refused, Unavailable, Unknown

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestrator.kernel import Kernel
    from orchestrator.objects import Objects

What = Literal["failed", "from", "node"]


def rerun(
    kernel: Kernel, engine: Engine, run_id: str, what: What, nodes: Sequence[str], budget_micros: int | None, reason: str, by: str
) -> int:
    """Put the next generation of a run on record and start it; return its number.

    Raises Unknown where there is no such run or node, Refused where it cannot be run again, BudgetRefused and RunsLimit where it is
    not admitted, and Unavailable; where that comes after the generation is on record, the sweeper starts it.
    """
    fields = {"run": run_id, "what": what, "nodes": json.dumps(list(nodes)), "budget": budget_micros, "reason": reason, "by": by}
    return _open(kernel, engine, run_id, fields)


def approve(kernel: Kernel, engine: Engine, run_id: str, generation: int, budget_micros: int | None, reason: str, by: str) -> int:
    """Open the next generation of a run whose `generation` was terminated by cost, because somebody approves; return its number.

    Approved before, it is the generation that was opened then. Raises as `rerun`, and Refused for a run that was not terminated by cost.
    """
    said = {"what": "failed", "nodes": "[]", "approval": 1, "of": generation}
    return _open(kernel, engine, run_id, {"run": run_id, **said, "budget": budget_micros, "reason": reason, "by": by})


def _open(kernel: Kernel, engine: Engine, run_id: str, fields: dict[str, Any]) -> int:
    if gone := collected(kernel.results.objects, engine, run_id):
        fields["gone"] = json.dumps(gone)
    answer = ask(kernel.link, "request.rerun", fields)
    if answer["status"] not in ("accepted", "approved"):
        raise _refusal(run_id, answer)
    generation = int(answer["gen"])
    if answer["status"] == "approved":
        return generation
    with contextlib.suppress(Unavailable):  # on record by now: it will run
        Admission(kernel, engine).start_or_refuse(run_id, generation)
    return generation


def collected(objects: Objects, engine: Engine, run_id: str) -> list[str]:
    """Return the nodes of a run whose result, or the graph that they returned, was an object and is not kept. Raises Unavailable."""
    of_objects = select(t.node.c.node_id, t.node.c.result).where(
        t.node.c.run_id == run_id, t.node.c.outcome == "succeeded", t.node.c.result.startswith(OBJECT_MARK)
    )
    with open_record(engine) as connection:
        named = {row.node_id: row.result for row in connection.execute(of_objects.order_by(t.node.c.generation))}
        for _, graphs in sorted(returned(connection, [run_id]).items()):
            named |= {node: source for node, source in graphs.items() if node not in named and source.startswith(OBJECT_MARK)}
    kept = set(objects.names(run_id)) if named else set()
    return sorted(node for node, name in named.items() if name[len(OBJECT_MARK) :] not in kept)


def _refusal(run_id: str, answer: dict[str, Any]) -> Exception:
    match answer["status"]:
        case "unknown_run":
            return Unknown(f"there is no run {run_id!r} whose graph is on record")
        case "unknown_node":
            return Unknown(f"run {run_id} has no node {', '.join(map(repr, answer['nodes']))}; `headgate show {run_id}` lists its nodes")
        case "live":
            return Refused(f"generation {answer['gen']} of run {run_id} is not over; cancel it, or wait for its end, before it runs again")
        case "refused":
            return Refused(f"run {run_id} was refused and never began; submit it again")
        case "approval":
            return Refused(f"run {run_id} was terminated by cost; it goes on only after an approval: `headgate approve {run_id}`")
        case "unneeded":
            ended = str(answer.get("outcome") or "over").replace("_", " ")
            return Refused(f"run {run_id} is {ended}, and not terminated by cost: there is nothing to approve")
        case "suspended":
            return Refused(f"the tenant of run {run_id} is {answer.get('standing', 'suspended')} and takes no new runs")
        case "nothing":
            return Refused(f"all nodes of run {run_id} succeeded; name the nodes that should run again all the same")
        case "invalid":
            return Refused(f"run {run_id} cannot run again: {answer.get('reason', 'the request does not read')}")
        case status:
            return Unavailable(f"the recorder answered {status!r}; is it of another version?")
