"""The sweeper: repairs what a crash left half done, from state and record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Engine, select

from cost import keys as money
from cost.task_ledger import sweep_tasks
from orchestrator import keys
from orchestrator.admission import Admission
from orchestrator.cancellation import Cancellation
from orchestrator.halt import halt
from orchestrator.kernel import Kernel
from orchestrator.log_context import about
from orchestrator.pieces import pieces
from orchestrator.store import tables as t
from tenancy import keys as transport
from tenancy.log import append
from tenancy.transport.queue import Queue

SIGNAL_GRACE_MS: Final = 200
"""How long an execution that has ended is left to its signal: so a reservation outlives its node by one sweep and this at most."""
RUNS_AT_ONCE: Final = 50
"""Runs that one call of the script forgets."""
MENDS: Final = ("reclaimed", "started", "published", "settled", "halted")
"""What of a sweep's work is repair; the rest is housekeeping that a healthy system has, too."""
PIECES_MAX: Final = 40
"""Calls of one sweep; the next one goes on."""


@dataclass
class Repairs:
    """What one sweep found and mended; all zero on a healthy system."""

    reclaimed: int = 0
    """messages of dead workers given back"""
    started: int = 0
    """submissions and half-loaded runs completed"""
    admitted: int = 0
    """runs that waited and were let in"""
    published: int = 0
    """nodes published again"""
    settled: int = 0
    """executions that no signal settled"""
    revoked: int = 0
    """cancelling and stopped runs driven on"""
    halted: int = 0
    """executions ended because their tenant's level says so"""
    stood_by: int = 0
    """runs whose place or hold followed their pause"""
    forgotten: int = 0
    """runs that Redis had kept for long enough after their end"""

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))


class Sweeper:
    """One pass over all live runs. Safe to run at any time, several at once: every step is idempotent.

    Raises Unavailable when Redis is away, Fenced between two epochs; the next sweep goes on.
    """

    def __init__(self, kernel: Kernel, engine: Engine) -> None:
        self.kernel = kernel
        self.engine = engine
        self.admission = Admission(kernel, engine)
        self.age_ms = int(kernel.settings.stale_after_s * 1000)

    def sweep(self) -> Repairs:
        """Repair, and say what was repaired."""
        found = Repairs()
        self._reclaim(found)
        found.halted = halt(self.kernel)
        found.revoked += Cancellation(self.kernel, self.engine).go_on()
        self._complete_submissions(found)
        for name in self.kernel.link.read("ZRANGE", keys.RUNS, 0, -1):
            run_id, generation = name.rsplit(".", 1)
            with about(run=run_id, generation=int(generation)):
                self._repair(run_id, int(generation), found)
        found.settled += sweep_tasks(self.kernel.link, self.age_ms)
        self._stand_by(found)
        found.admitted = self.admission.let_in()
        self._forget(found)
        self._tell(found)
        return found

    def _tell(self, found: Repairs) -> None:
        """Put repairs on record, where there were any: metrics count them. What a sweep that dies before this mended is not told."""
        mended = {kind: count for kind in MENDS if (count := getattr(found, kind))}
        if mended:
            append(self.kernel.link, {"t": "sweep.repaired", **mended})

    def _reclaim(self, found: Repairs) -> None:
        queue = Queue(self.kernel.link)
        more = 1
        while more:
            moved, more = queue.reclaim(int(self.kernel.settings.incarnation_ttl_s * 1000))
            found.reclaimed += moved

    def _complete_submissions(self, found: Repairs) -> None:
        before = self.kernel.link.now_ms() - self.age_ms
        waiting = select(t.run.c.run_id, t.run.c.generation).where(t.run.c.status == "submitted", t.run.c.submitted_at <= before)
        with self.engine.connect() as connection:
            rows = connection.execute(waiting.order_by(t.run.c.submitted_at, t.run.c.run_id)).all()
        for run_id, generation in rows:
            found.started += self.admission.start(run_id, generation)

    def _repair(self, run_id: str, generation: int, found: Repairs) -> None:
        key = f"{run_id}.{generation}"
        row = self.kernel.link.read("HMGET", keys.of_run("run", key), "status", "tenant", "created", "left", "stopped")
        status, tenant, created, left, stopped = row
        if status == "loading":
            if int(created) <= self.kernel.link.now_ms() - self.age_ms:
                found.started += self.admission.start(run_id, generation)
            return
        if left == "0" or self.kernel.link.read("LLEN", keys.of_run("cascade", key)):  # also ends a run whose last step died before it did
            due = self.kernel.finish_cascade(run_id, generation)
            found.published += self.kernel.launcher.publish(run_id, generation, tenant, due)
        if status == "cancelling":
            if self.kernel.launcher.is_partly_loaded(run_id, generation):
                found.started += self.admission.start(run_id, generation)  # cancelled while it was loaded: every node gets an outcome
            self.kernel.launcher.revoke_rest(run_id, generation)
            found.revoked += 1
        else:
            if stopped:
                self.kernel.launcher.revoke_rest(run_id, generation)
                found.revoked += 1
            due = self.kernel.link.read("ZRANGE", keys.of_run("due", key), 0, -1)
            running = self.kernel.link.read("HKEYS", keys.of_run("lease", key))
            for nodes in pieces([*due, *running]):
                lost = self.kernel.state.stale(run_id, generation, self.age_ms, nodes)
                found.published += self.kernel.launcher.publish(run_id, generation, tenant, lost)
        self._settle(run_id, generation, found)

    def _settle(self, run_id: str, generation: int, found: Repairs) -> None:
        """Settle executions that ended, and that no signal settled."""
        key = f"{run_id}.{generation}"
        executions = self.kernel.link.read("SMEMBERS", money.open_executions(key))
        before = self.kernel.link.now_ms() - min(self.age_ms, SIGNAL_GRACE_MS)
        for piece in pieces(sorted(executions)):
            rows = self.kernel.link.read("HMGET", money.reservations(key), *piece)
            nodes = [name.rsplit(":", 1)[0] for name in piece]
            done = self.kernel.link.read("HMGET", keys.of_run("attempt", key), *(f"{node}:done" for node in nodes))
            prices = self.kernel.link.read("HMGET", keys.of_run("attempt", key), *(f"{node}:prices" for node in nodes))
            for name, row, last, version in zip(piece, rows, done, prices, strict=True):
                node, attempt = name.rsplit(":", 1)
                _, _, _, _, cats, since = row.split("|")
                if last is not None and int(last) >= int(attempt) and int(since) <= before:
                    told = version if last == attempt and version else ""
                    self.kernel.state.charge(run_id, generation, node, int(attempt), cats, "sweeper", told)
                    found.settled += 1

    def _stand_by(self, found: Repairs) -> None:
        """Have places and holds follow the pauses of runs, where nobody came to do it, or it is time."""
        link, kept_ms = self.kernel.link, int(self.kernel.settings.paused_hold_s * 1000)
        paused = {scope.removeprefix("run:") for scope in link.read("SMEMBERS", transport.PAUSED) if scope.startswith("run:")}
        before = link.now_ms() - kept_ms
        away = set(link.read("ZRANGE", money.AWAY, 0, -1))
        long_away = link.read("ZRANGE", money.AWAY, "-inf", before, "BYSCORE")
        for name in sorted(paused ^ away | set(long_away)):
            run_id, generation = name.rsplit(".", 1)
            found.stood_by += bool(self.kernel.state.stand_by(run_id, int(generation), kept_ms))

    def _forget(self, found: Repairs) -> None:
        """Let go of runs whose end has been on record for long enough."""
        kept_ms = int(self.kernel.settings.run_keys_kept_s * 1000)
        for _ in range(PIECES_MAX):
            before = self.kernel.link.now_ms() - kept_ms
            names = self.kernel.link.read("ZRANGE", keys.OVER, "-inf", before, "BYSCORE", "LIMIT", 0, RUNS_AT_ONCE)
            if not names:
                return
            found.forgotten += self.kernel.state.forget(kept_ms, names)[0]
