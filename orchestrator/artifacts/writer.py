"""The writer of artifacts: a thread of the recorder, so that neither a slow disk nor a long life holds up the record."""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.artifacts.budget_usage import BudgetWriter
from orchestrator.artifacts.cost_decision import missing_decisions, reader, write_decisions
from orchestrator.artifacts.event_log import missing_logs, write_log
from orchestrator.artifacts.worker_summary import write_missing
from orchestrator.objects import Objects
from tenancy.errors import Unavailable

log = logging.getLogger("headgate.artifacts")

_Key = TypeVar("_Key")

AGAIN_S = 30.0
"""When what could not be written is tried again."""

LAST_S = 5.0
"""How long the recorder waits for it when it ends."""

_PASSING = (OSError, SQLAlchemyError, Unavailable, AttributeError, KeyError, TypeError, ValueError, zlib.error)
"""What one artifact may fail by without keeping back the others."""


class ArtifactWriter:
    """Writes what is missing when it is told that something may be; what fails is logged and tried again, and stops nobody.

    objects: where large inputs of decisions are; without it only what the record has itself is written. clock: the platform's time in ms.
    kept_s: what has been over for longer is not caught up with. on: else it writes nothing.
    """

    def __init__(
        self,
        engine: Engine,
        root: Path,
        key: bytes,
        objects: Objects | None = None,
        *,
        clock: Callable[[], int] = lambda: 0,
        kept_s: float = 0.0,
        on: bool = True,
    ) -> None:
        self.engine = engine
        self.root = root
        self.key = key
        self.writes = on
        self.budgets = BudgetWriter(engine, root, clock)
        self._kept_ms = int(kept_s * 1000)
        self._clock = clock
        self._told = threading.Event()
        self._ending = False
        self._summaries = self._looking = False
        self._runs: dict[tuple[str, int], None] = {}
        self._decided: dict[str, None] = {}
        self._read = reader(objects)
        self._thread = threading.Thread(target=self._run, name="headgate-artifacts", daemon=True)

    def catch_up(self) -> None:
        """Have everything written that a crash or a full disk kept back."""
        self._looking = True
        self.workers_ended()

    def workers_ended(self) -> None:
        """Have the summaries of ended workers written soon."""
        self._summaries = True
        self._tell()

    def runs_ended(self, runs: Iterable[tuple[str, int]]) -> None:
        """Have the logs of these runs and generations written soon, anew where they are there; of those that have ended."""
        if found := dict.fromkeys(runs):
            self._runs |= found
            self._tell()

    def decided(self, runs: Iterable[str]) -> None:
        """Have what was decided about these runs written soon."""
        if found := dict.fromkeys(runs):
            self._decided |= found
            self._tell()

    def spent(self, tenants: Iterable[str]) -> None:
        """Have what these tenants use written soon."""
        if self.writes:
            self.budgets.changed(tenants)

    def day(self, day: int) -> None:
        """Say what day it is (since 1970-01-01 UTC): on another one every tenant has a new budget."""
        if self.writes:
            self.budgets.day(day)

    def close(self) -> None:
        """Finish what was asked for, within a few seconds; the rest is caught up with at the next start."""
        self._ending = True
        self.budgets.close()
        self._told.set()
        if self._thread.ident is not None:
            self._thread.join(LAST_S)

    def _tell(self) -> None:
        if not self.writes:
            return
        if self._thread.ident is None:
            self._thread.start()
        self._told.set()

    def _run(self) -> None:
        wait_s: float | None = None
        while True:
            self._told.wait(wait_s)
            self._told.clear()
            done = [self._done(step) for step in (self._write_summaries, self._look, self._write_logs, self._write_decisions)]
            wait_s = None if all(done) else AGAIN_S
            if self._ending:
                return

    def _done(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except _PASSING as error:
            log.warning("artifacts could not be written, trying again in %.0f s: %s", AGAIN_S, error)
            return False
        return True

    def _write_summaries(self) -> None:
        if self._summaries:
            self._summaries = False
            try:
                write_missing(self.engine, self.root, self._since_ms())
            except BaseException:
                self._summaries = True
                raise

    def _look(self) -> None:
        if self._looking:
            self._runs |= dict.fromkeys(missing_logs(self.engine, self.root, self._since_ms()))
            self._decided |= dict.fromkeys(missing_decisions(self.engine, self.root, self._since_ms()))
            self._looking = False

    def _since_ms(self) -> int:
        """Return before when what is over needs no artifacts any more."""
        return self._clock() - self._kept_ms

    def _write_logs(self) -> None:
        def write(run: tuple[str, int]) -> object:
            return write_log(self.engine, self.root, self.key, *run)

        _each(self._runs, write)

    def _write_decisions(self) -> None:
        def write(run: str) -> object:
            return write_decisions(self.engine, self.root, run, self._read)

        _each(self._decided, write)


def _each(wanted: dict[_Key, None], write: Callable[[_Key], object]) -> None:
    """Write what is wanted, one after the other; what fails stays wanted, and the last failure is raised at the end."""
    failed: Exception | None = None
    for each in list(wanted):
        # Taken off before it is read: what is told meanwhile is written again.
        del wanted[each]
        try:
            write(each)
        except _PASSING as error:
            failed, wanted[each] = error, None
    if failed is not None:
        raise failed
