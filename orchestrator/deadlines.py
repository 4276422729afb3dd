"""The time that nodes of a run in flight may take: raised for what has not begun, and for what runs as far as its pool can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from orchestrator import control, keys
from orchestrator.compiler import decode_fragment
from orchestrator.expansion import above
from orchestrator.graph import Graph
from orchestrator.graph.fields import TIMEOUT_MAX_S
from orchestrator.pauses import on_record
from orchestrator.store import read
from tenancy.errors import Refused, Unknown

if TYPE_CHECKING:
    from orchestrator.kernel import Kernel

UNFINISHED = ("pending", "due", "running")


@dataclass(frozen=True)
class Extended:
    """What became of a raised time limit.

    waiting: how many nodes that had not begun have it. running: nodes whose running execution has it. kept: nodes whose running execution
    keeps the limit that it began with; their next attempt has the new one.
    """

    waiting: int
    running: tuple[str, ...]
    kept: tuple[str, ...]


def extend(
    kernel: Kernel, engine: Engine, run_id: str, generation: int, timeout_s: int, node: str | None, reason: str, by: str
) -> Extended:
    """Raise the time limit of the nodes of a run, or of one with all that it becomes.

    Of what is popped afterwards at once, of what workers have by their word.

    Raises Unknown, Refused, ValueError and Unavailable.
    """
    if type(timeout_s) is not int or not 1 <= timeout_s <= TIMEOUT_MAX_S:
        raise ValueError(f"timeout_s is {timeout_s!r}; give whole seconds from 1 to {TIMEOUT_MAX_S}")
    rg = f"{run_id}.{generation}"
    limits = _limits(kernel, engine, run_id, generation, node)
    states: Mapping[str, str] = kernel.link.read("HGETALL", keys.of_run("state", rg))
    if node is not None and kernel.link.read("HGET", keys.of_run("run", rg), "status") == "held":
        raise Refused(f"run {run_id} waits to be started; give a node more time once it has, or the whole run")
    _refuse_shorter(run_id, timeout_s, node, limits, states)

    def raise_limit() -> bool:
        former = kernel.state.deadline(run_id, generation, timeout_s, node or "", reason, by)
        if former == "":
            raise Refused(f"run {run_id} is over, or nobody has asked for its admission yet; there is nothing to give more time to")
        if former == "ended":
            raise Refused(f"the node {node!r} of run {run_id} has ended; there is nothing to give more time to")
        return True

    on_record(kernel.link, f"run {run_id} has {timeout_s} s for {node or 'each node'}", raise_limit)
    return _tell_workers(kernel, rg, timeout_s, node, limits)


def _limits(kernel: Kernel, engine: Engine, run_id: str, generation: int, node: str | None) -> dict[str, int]:
    """Return the time limits of the run's nodes, or of the one named, as they are now. Raises Unknown and Refused."""
    rg = f"{run_id}.{generation}"
    if read.get_run(engine, run_id, generation).status in ("ended", "refused"):
        raise Refused(f"run {run_id} is over; there is nothing to give more time to")
    spec = read.get_graph(engine, run_id, generation)
    declared = {each.id: each.timeout_s for each in Graph.model_validate_json(spec).nodes} if spec else {}
    for name, text in kernel.link.read("HGETALL", keys.of_run("fragment", rg)).items():
        if not name.startswith("of:"):
            declared |= {each: info.timeout_s for each, info in decode_fragment(text).nodes.items()}
    if node is not None and node not in declared:
        raise Unknown(f"run {run_id} has no node {node!r}; `headgate show {run_id}` lists them")
    raised = {name: int(seconds) for name, seconds in kernel.link.read("HGETALL", keys.of_run("timeout", rg)).items()}
    for_all = raised.get("*", 0)
    names = [each for each in declared if node is None or node in (each, *above(each))]
    return {each: max(declared[each], for_all, *(raised.get(f"{rg}.{part}", 0) for part in (each, *above(each)))) for each in names}


def _refuse_shorter(run_id: str, timeout_s: int, node: str | None, limits: Mapping[str, int], states: Mapping[str, str]) -> None:
    """Raise Refused where nothing that has not ended would get more time, and something has more already."""
    open_ = {each: seconds for each, seconds in limits.items() if states.get(each, "pending") in UNFINISHED}
    if not open_ or min(open_.values()) < timeout_s or max(open_.values()) == timeout_s:
        return
    least = min(open_.values())
    has = f"the node {node!r} has {least} s already" if node else f"each node that has not ended has {least} s or more"
    raise Refused(f"{timeout_s} s would give nothing of run {run_id} more time: {has}; a timeout can only be raised")


def _tell_workers(kernel: Kernel, rg: str, timeout_s: int, node: str | None, limits: Mapping[str, int]) -> Extended:
    shorter = {each for each, seconds in limits.items() if seconds <= timeout_s}
    extended = control.extend(kernel.app, kernel.link, rg, node or "", timeout_s)
    leases: Mapping[str, str] = kernel.link.read("HGETALL", keys.of_run("lease", rg))
    states: Mapping[str, str] = kernel.link.read("HGETALL", keys.of_run("state", rg))
    running = sorted(shorter & leases.keys())
    return Extended(
        waiting=sum(states.get(each, "pending") in ("pending", "due") for each in shorter),
        running=tuple(each for each in running if f"{rg}.{each}" in extended),
        kept=tuple(each for each in running if f"{rg}.{each}" not in extended),
    )
