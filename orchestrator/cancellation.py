"""Cancelling a run, some of its nodes, a tenant's work or everything: a fence that is on record before it is acknowledged.

Nothing of the scope begins once the fence is set, whoever holds a message of it. What has not begun gets its outcome afterwards, as far
as that takes no time; the sweeper does the rest, also where whoever cancelled died.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, select

from orchestrator import keys
from orchestrator.admission import Admission
from orchestrator.control import kill_leased
from orchestrator.graph import Graph
from orchestrator.launched import recorded_submission
from orchestrator.pauses import on_record
from orchestrator.pieces import pieces
from orchestrator.state import ROWS_MAX
from orchestrator.store import read
from orchestrator.store import tables as t
from tenancy.errors import Refused, Unknown
from tenancy.keys import WAITING

if TYPE_CHECKING:
    from orchestrator.kernel import Kernel

FINISH_S = 0.3
"""How long an acknowledgement waits for outcomes of what has not begun."""

LOADING_S = 2.0
"""How long a node's cancellation waits for its run to be loaded."""

LOADED_AT_ONCE = 1_000
"""A larger run that was cancelled before it was loaded is left to the sweeper."""

KILL_S = 5.0
"""How long whoever has executions killed waits for their end."""

POLL_S = 0.01


@dataclass(frozen=True)
class Stopped:
    """What became of nodes: `cancelled` had not begun, `told` run and are cancelled whatever they return, `ended` had ended before."""

    cancelled: int
    told: int
    ended: int


class Cancellation:
    """Cancels; every call may be repeated. Raises Unavailable when Redis or the recorder is away; then the fence may hold all the same."""

    def __init__(self, kernel: Kernel, engine: Engine) -> None:
        self.kernel = kernel
        self.engine = engine

    # -- a run -------------------------------------------------------------------------------------------------------------

    def run(self, run_id: str, generation: int, reason: str, by: str) -> bool:
        """Cancel a run; False when it has ended before. Raises Unknown."""
        row = self._row(run_id, generation)
        if row["status"] in ("ended", "refused"):
            return False
        if not on_record(self.kernel.link, f"run {run_id} is cancelled", lambda: self._fence_run(row, reason, by)):
            return False
        self.finish(run_id, generation, FINISH_S)
        return True

    def _fence_run(self, row: Mapping[str, Any], reason: str, by: str) -> bool:
        run_id, generation = row["run_id"], row["generation"]
        if self.kernel.state.cancel(run_id, generation, reason, by):
            return True
        if self._row(run_id, generation)["status"] in ("ended", "refused") or row["spec"] is None:
            return False
        # On record only: its producer died, or is about to ask for its admission and finds it cancelled.
        want = recorded_submission(row, self.kernel.settings).want(row["budget"])
        return bool(self.kernel.state.cancel(run_id, generation, reason, by, row["tenant"], want))

    def finish(self, run_id: str, generation: int, for_s: float) -> None:
        """Give nodes of a cancelled run that have not begun their outcome, for at most so long; the sweeper goes on."""
        until = time.monotonic() + for_s
        launcher = self.kernel.launcher
        total = self.kernel.link.read("HGET", keys.of_run("run", f"{run_id}.{generation}"), "total")
        if int(total or 0) <= LOADED_AT_ONCE and launcher.is_partly_loaded(run_id, generation):
            # It waited, or its producer was at work: every node gets an outcome.
            Admission(self.kernel, self.engine).start(run_id, generation)
        launcher.revoke_rest(run_id, generation, lambda: time.monotonic() < until)
        if self.kernel.link.read("EXISTS", WAITING):
            self.kernel.call_admission()

    # -- nodes -------------------------------------------------------------------------------------------------------------

    def nodes(self, run_id: str, generation: int, nodes: Sequence[str], reason: str, by: str, *, below: bool = False) -> Stopped:
        """Cancel nodes of a run that is not over; `below`: and all that only they feed. Raises Unknown and Refused."""
        row = self._row(run_id, generation)
        if row["status"] in ("ended", "refused"):
            raise Refused(f"run {run_id} is over; there is nothing to cancel")
        chosen = self._chosen(row, nodes, below=below)
        self._await_loaded(run_id, generation)
        found = Stopped(0, 0, 0)

        def stop() -> bool:
            nonlocal found
            found = stop_nodes(self.kernel, run_id, generation, chosen, reason, by)
            return bool(found.cancelled or found.told)

        on_record(self.kernel.link, f"{len(chosen)} nodes of run {run_id} are cancelled", stop)
        return found

    def _chosen(self, row: Mapping[str, Any], nodes: Sequence[str], *, below: bool) -> list[str]:
        """Return the nodes, children before their parents; what they became is found by whoever cancels them."""
        parents = Graph.model_validate_json(zlib.decompress(row["spec"])).parents() if row["spec"] else {}
        others = [node for node in nodes if node not in parents]
        key = keys.of_run("state", f"{row['run_id']}.{row['generation']}")
        there = self.kernel.link.read("HMGET", key, *others) if others else []
        if unknown := [node for node, state in zip(others, there, strict=True) if state is None]:
            raise Unknown(
                f"run {row['run_id']} has no node {', '.join(map(repr, unknown[:5]))}; `headgate show {row['run_id']}` lists them"
            )
        chosen = [*fed_only_by(parents, nodes), *others] if below else nodes
        return list(dict.fromkeys(chosen))[::-1]

    def _await_loaded(self, run_id: str, generation: int) -> None:
        until = time.monotonic() + LOADING_S
        while (status := self._status(run_id, generation)) in (None, "held", "loading"):
            if status == "held" or time.monotonic() > until:
                raise Refused(f"run {run_id} waits to be started; cancel a node once it has, or the whole run")
            time.sleep(POLL_S)

    def _status(self, run_id: str, generation: int) -> str | None:
        status: str | None = self.kernel.link.read("HGET", keys.of_run("run", f"{run_id}.{generation}"), "status")
        return status

    # -- a tenant, the platform --------------------------------------------------------------------------------------------

    def scope(self, scope: str, reason: str, by: str) -> list[tuple[str, int]]:
        """Cancel every run of `platform` or `tenant:{id}` that was submitted up to now; return them. Raises Unknown."""
        kind, _, name = scope.partition(":")
        if kind == "tenant":
            read.get_tenant(self.engine, name)
        elif scope != "platform":
            raise Unknown(f"there is no scope {scope!r}; name platform or tenant:ID")
        at = 0

        def fence() -> bool:
            nonlocal at
            at = self.kernel.state.fence(scope, reason, by)
            return True

        on_record(self.kernel.link, f"{scope} is cancelled", fence)
        runs = self.live(at, None if scope == "platform" else name)

        def cancel() -> bool:
            for row in runs:
                self._fence_run(row, reason, by)
            return True

        on_record(self.kernel.link, f"{scope} is cancelled", cancel)
        until = time.monotonic() + FINISH_S
        for row in runs:
            self.finish(row["run_id"], row["generation"], max(0.0, until - time.monotonic()))
        return [(row["run_id"], row["generation"]) for row in runs]

    def go_on(self) -> int:
        """Cancel what fences left: runs from before one that nobody has cancelled yet; return how many."""
        cancelled = 0
        for scope, at in dict(self.kernel.link.read("HGETALL", keys.FENCE)).items():
            kind, _, name = scope.partition(":")
            for row in self.live(int(at), name if kind == "tenant" else None):
                if row["status"] != "cancelling" and self._status(row["run_id"], row["generation"]) != "cancelling":
                    cancelled += self._fence_run(row, f"{scope} was cancelled", "headgate")
        return cancelled

    def live(self, until_ms: int, tenant: str | None) -> list[Mapping[str, Any]]:
        """Return the rows of runs that are not over and were submitted up to then, of a tenant or of all."""
        wanted = select(t.run).where(t.run.c.status.in_(t.LIVE), t.run.c.submitted_at <= until_ms)
        if tenant is not None:
            wanted = wanted.where(t.run.c.tenant == tenant)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(wanted.order_by(t.run.c.submitted_at)).mappings()]

    # -- at once -----------------------------------------------------------------------------------------------------------

    def kill(self, run_id: str, generation: int, nodes: Sequence[str] | None, reason: str, for_s: float, *, below: bool = False) -> int:
        """End the processes that run nodes of a run (None: any of them) that were cancelled; return how many were told to.

        Waits for at most `for_s` seconds until they are gone. Only processes of the prefork pool end; others finish by themselves.
        """
        key = f"{run_id}.{generation}"
        if nodes is not None:
            nodes = self._chosen(self._row(run_id, generation), nodes, below=below)
            nodes = [*nodes, *grown_of(self.kernel, key, nodes)]
        leases: dict[str, str] = self.kernel.link.read("HGETALL", keys.of_run("lease", key))
        chosen = [node for node in leases if nodes is None or node in nodes]
        ended = list(chosen)
        told = kill_leased(self.kernel.app, self.kernel.link, {f"{key}.{node}": leases[node] for node in chosen})
        until = time.monotonic() + for_s
        while told and chosen and time.monotonic() < until:
            self.kernel.state.revoke(run_id, generation, "cancelled", reason, chosen[:ROWS_MAX])
            still = self.kernel.link.read("HMGET", keys.of_run("lease", key), *chosen)
            chosen = [node for node, lease in zip(chosen, still, strict=True) if lease is not None]
            if chosen:
                time.sleep(5 * POLL_S)
        if told:  # what was given up since is due again, and has its outcome to come
            self.kernel.state.revoke(run_id, generation, "cancelled", reason, ended[:ROWS_MAX])
        return told

    def _row(self, run_id: str, generation: int) -> Mapping[str, Any]:
        query = select(t.run).where(t.run.c.run_id == run_id, t.run.c.generation == generation)
        with read.open_record(self.engine) as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise Unknown(f"there is no run {run_id!r} with generation {generation}")
        return dict(row)


def stop_nodes(kernel: Kernel, run_id: str, generation: int, nodes: Sequence[str], reason: str, by: str) -> Stopped:
    """Set the fence of nodes, children first, and publish what goes on without them; not yet on record when this returns.

    What they became is cancelled with them.
    """
    found = _stop_nodes(kernel, run_id, generation, nodes, reason, by)
    if grown := grown_of(kernel, f"{run_id}.{generation}", nodes):  # asked for now, when they become no more
        more = _stop_nodes(kernel, run_id, generation, grown, reason, by)
        found = Stopped(found.cancelled + more.cancelled, found.told + more.told, found.ended + more.ended)
    return found


def grown_of(kernel: Kernel, rg: str, nodes: Sequence[str]) -> list[str]:
    """Return the nodes that some of a run's nodes became, and that these became."""
    made = kernel.link.read("HMGET", keys.of_run("wait", rg), *(f"{node}:made" for node in nodes)) if nodes else []
    owners = tuple(f"{node}." for node, count in zip(nodes, made, strict=True) if count is not None)
    if not owners:
        return []
    below = [node for node in kernel.link.read("HKEYS", keys.of_run("state", rg)) if node.startswith(owners)]
    fragments = kernel.link.read("HMGET", keys.of_run("fragment", rg), *(f"of:{node}" for node in below)) if below else []
    # Nodes of the graph are in fragments that have a number.
    return [node for node, fragment in zip(below, fragments, strict=True) if not str(fragment).isdecimal()]


def _stop_nodes(kernel: Kernel, run_id: str, generation: int, nodes: Sequence[str], reason: str, by: str) -> Stopped:
    cancelled = told = 0
    tenant = kernel.link.read("HGET", keys.of_run("run", f"{run_id}.{generation}"), "tenant")
    for piece in pieces(nodes):
        stopped, warned, more, *due = kernel.state.stop(run_id, generation, reason, by, piece)
        cancelled, told = cancelled + int(stopped), told + int(warned)
        ready = set(due)
        if more:
            ready |= kernel.finish_cascade(run_id, generation)
        if ready:
            kernel.launcher.publish(run_id, generation, tenant, ready)
    return Stopped(cancelled, told, len(nodes) - cancelled - told)


_TASK_ID = re.compile(r"([0-9a-z]{26})\.([0-9]+)\.(.+)")


def node_of(task_id: str) -> tuple[str, int, str] | None:
    """Return run, generation and node that a Celery task id names; None for the id of an ordinary task."""
    found = _TASK_ID.fullmatch(task_id)
    return (found[1], int(found[2]), found[3]) if found else None


def fed_only_by(parents: Mapping[str, Sequence[str]], nodes: Collection[str]) -> list[str]:
    """Return `nodes` and all that only they feed, parents first: what has no parent but among these."""
    found = set(nodes)
    order = list(TopologicalSorter(parents).static_order())
    for node in order:
        if parents[node] and all(parent in found for parent in parents[node]):
            found.add(node)
    return [node for node in order if node in found]
