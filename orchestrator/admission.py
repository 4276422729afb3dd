"""Admission from the record: runs that wait are let in and started, whoever submitted them and whatever became of that."""

from __future__ import annotations

import contextlib
import json
import zlib

from sqlalchemy import Engine, select

from orchestrator.graph import Graph
from orchestrator.graph.limits import EDGES_CEILING, NODES_CEILING, Limits
from orchestrator.kernel import Kernel
from orchestrator.store import tables as t
from orchestrator.submission import Submission
from tenancy.errors import Refused
from tenancy.keys import WAITING
from tenancy.priorities import Priority

STORED = Limits(nodes=NODES_CEILING, edges=EDGES_CEILING)
"""A stored graph was checked against its submission's limits; only what no setting allows is refused here."""

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
        query = select(t.run).where(t.run.c.run_id == run_id, t.run.c.generation == generation)
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None or row["spec"] is None:
            return 0
        graph = Graph.parse(zlib.decompress(row["spec"]), STORED)
        learned, terms = json.loads(row["learned"] or "{}"), {"strict": bool(row["strict"]), "full": bool(row["full"])}
        submission = Submission.of(graph, self.kernel.settings, Priority.parse(row["priority"]), learned, **terms)
        with contextlib.suppress(Refused):  # the refusal is an event; the record has it
            self.kernel.launcher.start(run_id, generation, row["tenant"], submission, row["budget"])
        return 1

    def cancel(self, run_id: str, generation: int, reason: str, by: str) -> bool:
        """Cancel a run: once this returns nothing of it begins. False when it has ended or is unknown."""
        if not self.kernel.launcher.cancel(run_id, generation, reason, by):
            return False
        if self.kernel.launcher.is_partly_loaded(run_id, generation):  # it waited, or its producer was at work: every node gets an outcome
            self.start(run_id, generation)
            self.kernel.launcher.revoke_rest(run_id, generation, reason)
        if self.kernel.link.read("EXISTS", WAITING):
            self.kernel.call_admission()
        return True
