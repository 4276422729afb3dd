"""The record of one run made anew: its log recorded once more, by the recorder's own code, into an empty database in memory."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Engine, Table, delete, insert, select
from sqlalchemy.engine import Connection

from orchestrator.recorder.projection import parts, project
from orchestrator.store import tables as t
from orchestrator.store.changes import Row
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.writer import write

from .run_log import RunLog

AT_ONCE = 1_000

FROM_EVENTS = (
    "status",
    "outcome",
    "reason",
    "started_at",
    "finished_at",
    "total",
    "hold",
    "estimate",
    "floor",
    "cost_micros",
    "counts",
    "timeout_s",
)
"""Columns of a run that its events alone decide."""

TABLES = {"run": t.run, "node": t.node, "decision": t.decision, "ledger": t.ledger, "usage": t.usage, "event": t.event}
"""What is made anew and compared."""


def recompute(log: RunLog, earlier: Sequence[RunLog] = ()) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the run that its events make, by table; `incident` are the events that do not read as their type says.

    earlier: the generations before it, oldest first, which it may have adopted nodes of.
    """
    engine = open_engine("sqlite://", writer=True)
    try:
        create_tables(engine)
        for each in earlier:
            _record(engine, each)
        with engine.begin() as connection:
            connection.execute(delete(t.incident))
        _record(engine, log)
        with engine.connect() as connection:
            return {name: _rows(connection, table, log) for name, table in {**TABLES, "incident": t.incident}.items()}
    finally:
        engine.dispose()


def _rows(connection: Connection, table: Table, log: RunLog) -> list[dict[str, Any]]:
    wanted = select(table).order_by(*table.primary_key.columns)
    if "generation" in table.c:
        wanted = wanted.where(table.c.generation == log.generation)
    return [dict(row) for row in connection.execute(wanted).mappings()]


def _record(engine: Engine, log: RunLog) -> None:
    steps = iter(sorted({step.position: step for step in (*log.steps, *log.after)}.values(), key=lambda step: step.position))
    with engine.begin() as connection:
        connection.execute(insert(t.run), first_row(log))
        while piece := [step.entry for step in islice(steps, AT_ONCE)]:
            for part in parts(piece):
                changes = project(part)
                changes.events = [row for row in changes.events if row["run_id"]]  # a rebuild belongs to no run
                changes.requests.clear()  # the row of the run says what was answered
                write(connection, changes)


def first_row(log: RunLog) -> Row:
    """Return the row of the run before anything happened to it."""
    row = {**log.submitted, "spec": None if log.spec is None else zlib.compress(log.spec)}
    row |= dict.fromkeys(FROM_EVENTS)
    return row | {"status": "submitted", "cost_micros": 0}


def differing(log: RunLog, made: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a sentence for each row on record that is not what the events make, by its key and columns."""
    found: list[str] = []
    for name, table in TABLES.items():
        keys = [column.name for column in table.primary_key.columns]
        on_record = {tuple(row[key] for key in keys): row for row in log.rows.get(name, ())}
        expected = {tuple(row[key] for key in keys): row for row in made[name]}
        # Not its link, which is another matter, and not the graph, which has a digest.
        compared = [column.name for column in table.columns if (name, column.name) not in (("event", "link"), ("run", "spec"))]
        for key in sorted(on_record.keys() | expected.keys()):
            what = f"{name} {_named(name, key)}"
            if key not in on_record:
                found.append(f"{what}: is not on record, and the log makes it")
            elif key not in expected:
                found.append(f"{what}: is on record, and nothing in the log makes it")
            else:
                found += [
                    f"{what}: {column} is {_shown(on_record[key][column])} on record, and {_shown(expected[key][column])} by the log"
                    for column in compared
                    if on_record[key][column] != expected[key][column]
                ]
    return found


def _named(table: str, key: Sequence[Any]) -> str:
    if table == "event":
        return "-".join(map(str, key))
    return ".".join(str(each) for each in (key[2:] if table in ("node", "usage") else key))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
