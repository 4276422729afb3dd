"""Admission from the record: runs that wait are let in and started, whoever submitted them and whatever became of that."""

from __future__ import annotations

import contextlib

from sqlalchemy import Engine, select

from orchestrator.kernel import Kernel
from orchestrator.launched import recorded_submission
from orchestrator.store import tables as t
from orchestrator.store.adopted import read_adopted
from tenancy.errors import Refused

AT_ONCE = 20
"""Runs that one call of the script lets in; they are started before the next call."""

CALLS_MAX = 50
"""Calls of one round. A call looks at 200 tenants at most and the next goes on after them, so the next round goes on too."""


class Admission:
    """Lets runs in from the lines of their tenants. Safe to run at any time, several at once.

    Raises Unavailable when Redis is away, Fenced between two epochs; a run that was let in and not started is completed by the sweeper.
    """

    def __init__(self, kernel: Kernel, engine: Engine) -> None:
        self.kernel = kernel
        self.engine = engine

    def let_in(self) -> int:
        """Let in and start every run that may; return how many."""
        admitted = 0
        for _ in range(CALLS_MAX):
            more, *names = self.kernel.state.let_in(AT_ONCE)
            for name in names:
                run_id, generation = str(name).rsplit(".", 1)
                self.start(run_id, int(generation))
            admitted += len(names)
            if not more:
                break
        return admitted

    def start(self, run_id: str, generation: int) -> int:
        """Admit, load and launch a run as it is on record; 0 when the record has nothing to start. May find it started."""
        with contextlib.suppress(Refused):  # the refusal is an event; the record has it
            return self.start_or_refuse(run_id, generation)
        return 1

    def start_or_refuse(self, run_id: str, generation: int) -> int:
        """Start a run as `start` does. Raises BudgetRefused, RunsLimit or another Refused where it is refused."""
        since_ms = self.kernel.link.now_ms()
        query = select(t.run).where(t.run.c.run_id == run_id, t.run.c.generation == generation)
        with self.engine.connect() as connection:
            found = connection.execute(query).mappings().one_or_none()
            if found is None or found["spec"] is None:
                return 0
            row = dict(found)
            submission = recorded_submission(row, self.kernel.settings)
            adopted = read_adopted(connection, run_id, submission.adopts)
        self.kernel.launcher.start(run_id, generation, row["tenant"], submission, row["budget"], since_ms, adopted)
        return 1
