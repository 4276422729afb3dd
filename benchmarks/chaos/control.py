"""What a person does to the runs of a seed: cancels, pauses, reruns; each call repeated until it is acknowledged, whatever was killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.chaos import evidence as look
from benchmarks.chaos.graphs import TENANTS
from benchmarks.chaos.points import POINTS, arm
from orchestrator.client import Client
from orchestrator.store import read
from tenancy.errors import HeadgateError, Refused, Unavailable, Unknown

ACKNOWLEDGED_WITHIN_S = 60.0
PAUSE_MOST_S = 2.0
WHENS = ("before", "after")

T = TypeVar("T")


class Control:
    """The hand of an operator; `broken` is told what must not happen: a rule, to what, and how."""

    def __init__(self, client: Client, points: Path, broken: Callable[[str, str, str], None]) -> None:
        self.client = client
        self.points = points
        self._broken = broken
        self._cancelled: set[str] = set()
        self._pauses: list[threading.Thread] = []

    def act(self, kind: str, pick: int) -> str | None:
        """Do one of ACTS; return to what, or None when there was nothing to do it to."""
        match kind:
            case "cancel":
                return self.cancel(pick)
            case "cancel nodes":
                return self.cancel_nodes(pick)
            case "pause":
                return self.pause(pick)
        role = ("worker", "worker", "worker", "producer", "recorder")[pick % 5]
        name = POINTS[role][pick // 5 % len(POINTS[role])]
        arm(self.points, role, name, WHENS[pick // 1000 % 2])
        return f"{role}.{name}"

    def cancel(self, pick: int) -> str | None:
        """Cancel one of the live runs."""
        run = self._live(pick, self._cancelled)
        if run is None or self._acknowledged(run, lambda: self.client.cancel(run, reason="chaos", by="chaos")) is None:
            return None
        self._cancelled.add(run)
        return run

    def cancel_nodes(self, pick: int) -> str | None:
        """Cancel up to three nodes of a live run, every second time with all that only they feed."""
        run = self._live(pick, self._cancelled)
        if run is None:
            return None
        spec = read.get_graph(self.client.engine, run)
        if spec is None:
            return None
        nodes = sorted(look.nodes_of(spec))
        chosen = sorted({nodes[pick // step % len(nodes)] for step in (1, 7, 49)})
        done = self._acknowledged(run, lambda: self.client.cancel(run, chosen, below=bool(pick % 2), reason="chaos", by="chaos"))
        return None if done is None else f"{run} {' '.join(chosen)}"

    def pause(self, pick: int) -> str | None:
        """Pause a run, a tenant or everything; it is resumed after up to 2 s."""
        run = self._live(pick, set())
        scope = ("platform", f"tenant:{TENANTS[pick % len(TENANTS)]}", f"run:{run}")[pick % 3]
        if run is None:
            return None
        paused = self._acknowledged(scope, lambda: self.client.pause(scope, reason="chaos", by="chaos"))
        # Also where nobody acknowledged it: it may hold all the same.
        thread = threading.Thread(target=self._resume, args=(scope, pick % 100 / 100 * PAUSE_MOST_S), daemon=True)
        thread.start()
        self._pauses.append(thread)
        return None if paused is None else scope

    def let_go(self) -> None:
        """Wait until nothing is paused any more, and disarm what nobody came to."""
        for thread in self._pauses:
            thread.join()
        for file in self.points.iterdir():
            if "@" not in file.name:
                file.unlink(missing_ok=True)

    def rerun(self, most: int) -> list[tuple[str, int]]:
        """Run again what had no success in at most so many runs that are over; return their new generations."""
        found = []
        for run in read.list_runs(self.client.engine, limit=1000):
            if len(found) < most and run.outcome in ("failed", "cancelled"):
                handle = self._acknowledged(run.run_id, lambda run=run: self.client.rerun(run.run_id, reason="chaos", by="chaos"))  # type: ignore[misc]
                if handle is not None:
                    found.append((handle.run_id, handle.generation))
        return found

    def _resume(self, scope: str, after_s: float) -> None:
        time.sleep(after_s)
        self._acknowledged(scope, lambda: self.client.resume(scope, reason="chaos", by="chaos"))

    def _live(self, pick: int, besides: set[str]) -> str | None:
        live = [run for run in look.unfinished(self.client.engine) if run not in besides]
        return live[pick % len(live)] if live else None

    def _acknowledged(self, subject: str, call: Callable[[], T]) -> T | None:
        """Make a call until it returns; None when there is nothing to be done any more."""
        until = time.monotonic() + ACKNOWLEDGED_WITHIN_S
        while time.monotonic() < until:
            try:
                return call()
            except Unavailable:
                time.sleep(0.1)
            except (Refused, Unknown):
                return None  # it has ended, or has not begun
            except HeadgateError as error:
                self._broken("control", subject, repr(error))
                return None
            except Exception as error:  # noqa: BLE001 (the rule is that there is no such exception)
                self._broken("error tree", subject, f"{type(error).__module__}.{type(error).__name__}: {error}")
                time.sleep(0.1)
        self._broken("control", subject, f"was not acknowledged within {ACKNOWLEDGED_WITHIN_S:g} s")
        return None
