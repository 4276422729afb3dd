"""The collector: removes objects of results that nobody refers to, or that were kept for long enough."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Engine, select
from sqlalchemy.engine import Connection
from ulid import ULID

from orchestrator.logs.line import SUFFIX
from orchestrator.objects import Directory, Objects
from orchestrator.results import OBJECT_MARK
from orchestrator.store import tables as t
from orchestrator.store.expansions import returned
from orchestrator.store.read import open_record

RUNS_AT_ONCE: Final = 200
PASS_S: Final = 5.0
"""A pass begins no other piece after this long; the next one begins somewhere else."""

Generation = tuple[str, int]


class Collector:
    """Looks through the store of results, run by run; safe to run at any time, several at once.

    An object stays while a generation of its run is not over, and while one refers to it that ended less than `ttl_s` ago: its own, or a
    later one that adopted its node. So what a superseded attempt wrote goes soon after the end, and so does, `ttl_s` later,
    the rest, logs of all attempts among it. Objects of runs that the record does not know go by the time that is in the run's id.

    :param ttl_s: how long objects are kept after the end of the last generation that refers to them, seconds.
    """

    def __init__(self, objects: Objects, engine: Engine, ttl_s: float) -> None:
        self.objects = objects
        self.engine = engine
        self.ttl_ms = int(ttl_s * 1000)

    def collect(self, now_ms: int) -> int:
        """Remove what may go, for some seconds at most; return how many objects. Raises Unavailable."""
        until = time.monotonic() + PASS_S
        if isinstance(self.objects, Directory):
            self.objects.sweep_parts(now_ms / 1000)
        runs = self.objects.runs()
        first = random.randrange(len(runs)) if len(runs) > RUNS_AT_ONCE else 0  # a pass may not come to the end
        runs = runs[first:] + runs[:first]
        removed = 0
        for at in range(0, len(runs), RUNS_AT_ONCE):
            if at and time.monotonic() > until:
                break
            removed += self._collect_of(runs[at : at + RUNS_AT_ONCE], now_ms)
        return removed

    def _collect_of(self, runs: Sequence[str], now_ms: int) -> int:
        # Listed before the record is read: what is written meanwhile is not looked at.
        names = {run_id: self.objects.names(run_id) for run_id in runs}
        with open_record(self.engine) as connection:
            ended = _ended(connection, runs)
            wanted = _referred(connection, [each for each, at in ended.items() if at is not None and at > now_ms - self.ttl_ms])
        live = {run_id for (run_id, _), at in ended.items() if at is None}
        fresh = {run_id for (run_id, _), at in ended.items() if at is not None and at > now_ms - self.ttl_ms}
        known = {run_id for run_id, _ in ended}
        gone: list[str] = []
        for run_id, of_run in names.items():
            if run_id in known and run_id not in live:
                # Nothing refers to logs: they stay as long as the run that they are of.
                gone += [name for name in of_run if name not in wanted and not (run_id in fresh and name.endswith(SUFFIX))]
            elif run_id not in known and _age_ms(run_id, now_ms) > self.ttl_ms:
                gone += of_run
        return self.objects.remove(gone)


def _ended(connection: Connection, runs: Sequence[str]) -> dict[Generation, int | None]:
    """Return when each generation of these runs ended, None where it has not."""
    rows = select(t.run.c.run_id, t.run.c.generation, t.run.c.finished_at, t.run.c.status).where(t.run.c.run_id.in_(runs))
    found = connection.execute(rows).all()
    return {(row.run_id, row.generation): None if row.status in t.LIVE else row.finished_at or 0 for row in found}


def _referred(connection: Connection, generations: Sequence[Generation]) -> set[str]:
    """Return the names of the objects that nodes of these generations, and decisions about them, refer to."""
    by_run: dict[str, set[int]] = defaultdict(set)
    wanted = set(generations)
    for run_id, generation in wanted:
        by_run[run_id].add(generation)
    of_objects = select(t.node.c.run_id, t.node.c.generation, t.node.c.result).where(
        t.node.c.run_id.in_(list(by_run)), t.node.c.result.startswith(OBJECT_MARK)
    )
    of_decisions = select(t.decision.c.run_id, t.decision.c.generation, t.decision.c.inputs.label("result")).where(
        t.decision.c.run_id.in_(list(by_run)), t.decision.c.inputs.startswith(OBJECT_MARK)
    )
    rows: Any = [row for statement in (of_objects, of_decisions) for row in connection.execute(statement)]
    found = {row.result[len(OBJECT_MARK) :] for row in rows if row.generation in by_run[row.run_id]}
    # Graphs that tasks returned: a rerun goes on with them.
    graphs = [known for of, known in returned(connection, list(by_run)).items() if of in wanted]
    sources = {source for known in graphs for source in known.values() if source.startswith(OBJECT_MARK)}
    return found | {source[len(OBJECT_MARK) :] for source in sources}


def _age_ms(run_id: str, now_ms: int) -> int:
    try:
        return now_ms - int(ULID.from_str(run_id.upper()).milliseconds)
    except ValueError:
        return 0  # not a run of ours: left alone
