"""The summary of a worker that has ended, from its enrolment to its end: what it executed, and how that went."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select, text, tuple_

from orchestrator.artifacts import place
from orchestrator.artifacts.file import write_json
from orchestrator.store import tables as t
from orchestrator.store.engine import reading
from orchestrator.store.position import Position

SCHEMA_VERSION = 1

LOOKED_BACK = 10_000
"""Newest enrolments and ends among which workers without a summary are looked for."""

_EXECUTION = ("node.began", "node.ended", "node.retry")


@dataclass(frozen=True)
class Life:
    """One incarnation: where in the log it began and ended, when (ms), and how: retired, dead, or lost with Redis."""

    worker_id: str
    began: Position
    ended: Position
    started_ms: int
    ended_ms: int
    how: str
    info: dict[str, Any] = field(default_factory=dict)


def lives(events: Iterable[tuple[Position, dict[str, Any]]]) -> list[Life]:
    """Return the lives that are over, from the `worker.*` and `epoch.opened` events in their order.

    An epoch that was rebuilt ends every incarnation before it.
    """
    open_: dict[str, tuple[Position, dict[str, Any]]] = {}
    found: list[Life] = []

    def end(worker_id: str, position: Position, at: int, how: str) -> None:
        if worker_id in open_:
            began, enrolled = open_.pop(worker_id)
            found.append(Life(worker_id, began, position, int(enrolled["at"]), at, how, dict(enrolled.get("info") or {})))

    for position, event in events:
        kind = event["t"]
        if kind == "worker.enrolled":
            open_[str(event["inc"])] = (position, event)
        elif kind in ("worker.retired", "worker.dead"):
            end(str(event["inc"]), position, int(event["at"]), kind.partition(".")[2])
        elif kind == "epoch.opened" and int(event.get("rebuilt") or 0):
            for worker_id in list(open_):
                end(worker_id, position, int(event["at"]), "lost")
    return found


def summarise(life: Life, events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of a worker from the events of executions during its life, its own and others'.

    executed: attempts that it began; succeeded and failed (also by timeout, also when another attempt followed) those that ended while it
    lived; throughput_per_s: executed / life. Times are epoch seconds.
    """
    running: set[tuple[Any, ...]] = set()
    executed = succeeded = failed = 0
    for event in events:
        execution = (event["run"], event["gen"], event["node"], event.get("attempt"))
        if event["t"] == "node.began":
            if event.get("inc") == life.worker_id:
                running.add(execution)
                executed += 1
        elif execution in running:
            running.discard(execution)
            succeeded += event["t"] == "node.ended" and event["outcome"] == "succeeded"
            failed += event["t"] == "node.retry" or event["outcome"] in ("failed", "timed_out")
    lived_s = (life.ended_ms - life.started_ms) / 1000
    return {
        "schema_version": SCHEMA_VERSION,
        "worker_id": life.worker_id,
        "name": life.info.get("name"),
        "host": life.info.get("host"),
        "pools": life.info.get("pools") or [],
        "started": life.started_ms / 1000,
        "ended": life.ended_ms / 1000,
        "how": life.how,
        "executed": executed,
        "succeeded": succeeded,
        "failed": failed,
        "success_rate": succeeded / executed if executed else None,
        "throughput_per_s": executed / lived_s if lived_s > 0 else 0.0,
    }


def write_missing(engine: Engine, root: Path, since_ms: int = 0) -> list[str]:
    """Write the summary of each worker that has ended since then and has none; return their ids. Raises SQLAlchemyError and OSError."""
    written = []
    for life in lives(of_workers(engine)):
        path = place.worker_summary(root, life.worker_id)
        if life.ended_ms >= since_ms and not path.exists():
            write_json(path, summarise(life, _of_executions(engine, life)))
            written.append(life.worker_id)
    return written


def of_workers(engine: Engine) -> list[tuple[Position, dict[str, Any]]]:
    """Return the newest events of the lives of workers, in their order. Raises SQLAlchemyError."""
    columns = select(t.event.c.epoch, t.event.c.seq, t.event.c.data).where(text(t.OF_WORKERS))
    newest = columns.order_by(t.event.c.epoch.desc(), t.event.c.seq.desc()).limit(LOOKED_BACK)
    with reading(engine).connect() as connection:
        rows = connection.execute(newest).all()
    return [(Position(row.epoch, row.seq), json.loads(row.data)) for row in reversed(rows)]


def _of_executions(engine: Engine, life: Life) -> Iterator[dict[str, Any]]:
    at = tuple_(t.event.c.epoch, t.event.c.seq)
    during = select(t.event.c.type, t.event.c.data).where(
        at > tuple_(*life.began), at < tuple_(*life.ended), t.event.c.type.in_(_EXECUTION)
    )
    with reading(engine).connect() as connection:
        rows = connection.execution_options(yield_per=1_000).execute(during.order_by(t.event.c.epoch, t.event.c.seq))
        for kind, data in rows:
            if kind != "node.began" or life.worker_id in data:  # what others began need not be read
                yield json.loads(data)
