"""The log of a run as it is in SQL, and the rows beside it, at one moment."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, select
from sqlalchemy.engine import Connection

from orchestrator.chain import Head
from orchestrator.store import tables as t
from orchestrator.store.chain import PLATFORM, Name, rebuilds
from orchestrator.store.position import Position
from orchestrator.store.read import open_record
from tenancy.errors import Unknown

from .recompute import TABLES
from .run_log import End, RunLog, Step

_WHOLE: Mapping[str, Sequence[Any]] = {name: list(table.columns) for name, table in TABLES.items()}
_TOTALS: Mapping[str, Sequence[Any]] = {
    "run": list(t.run.columns),
    "node": [t.node.c.node_id, t.node.c.state, t.node.c.outcome],
    "ledger": [t.ledger.c.kind, t.ledger.c.category, t.ledger.c.amount],
    "event": [t.event.c.epoch, t.event.c.seq, t.event.c.data, t.event.c.link],
}


def generations(engine: Engine, run_id: str) -> list[int]:
    """Return the generations of a run, oldest first. Raises Unknown, Unavailable."""
    with open_record(engine) as connection:
        found = connection.execute(select(t.run.c.generation).where(t.run.c.run_id == run_id).order_by(t.run.c.generation)).scalars().all()
    if not found:
        raise Unknown(f"there is no run {run_id!r}")
    return list(found)


def read_log(engine: Engine, run_id: str, generation: int, *, totals: bool = False) -> RunLog:
    """Return the log of a run's generation with what is on record of it, all at one moment. Raises Unknown, Unavailable.

    totals: read of nodes and entries only what totals are made of, and no usage.
    """
    with open_record(_at_once(engine)) as connection:
        rows = {name: _rows(connection, columns, run_id, generation) for name, columns in (_TOTALS if totals else _WHOLE).items()}
        if not rows["run"]:
            raise Unknown(f"there is no run {run_id!r} with generation {generation}")
        end = _end(connection, run_id, generation)
        steps = [Step(Position(row["epoch"], row["seq"]), row["data"], row["link"]) for row in rows["event"]]
        first = steps[0].position if steps else Position(0, 0)
        passed = [Step(position, text, None, passed=True) for position, text in rebuilds(connection, first)]
    run = rows["run"][0]
    if run["logged"] < 2 and not totals:
        raise Unknown(f"the log of run {run_id} generation {generation} was pruned; `headgate replay DIR` reads that of its artifacts")
    spec = run["spec"]
    last = steps[-1].position if steps else first
    return RunLog(
        run_id,
        generation,
        run,
        None if spec is None else zlib.decompress(spec),
        sorted([*steps, *(step for step in passed if step.position < last)], key=lambda step: step.position),
        end,
        [step for step in passed if step.position > last],
        rows=rows,
    )


def read_chain(engine: Engine, name: Name, which: ColumnElement[bool] | None = None) -> RunLog:
    """Return the events of a chain and its end, at one moment, and nothing beside. Raises Unavailable.

    which: what events are its own; those of run and generation unless said.
    """
    run_id, generation = name
    columns = (t.event.c.epoch, t.event.c.seq, t.event.c.data, t.event.c.link)
    own = which if which is not None else and_(t.event.c.run_id == run_id, t.event.c.generation == generation)
    with open_record(_at_once(engine)) as connection:
        found = connection.execute(select(*columns).where(own).order_by(t.event.c.epoch, t.event.c.seq))
        steps = [Step(Position(row.epoch, row.seq), row.data, row.link) for row in found]
        end = _end(connection, run_id, generation)
        through = rebuilds(connection, steps[0].position) if steps and name != PLATFORM else []
    passed = [Step(position, text, None, passed=True) for position, text in through if position < steps[-1].position]
    return RunLog(run_id, generation, {}, None, sorted([*steps, *passed], key=lambda step: step.position), end)


def _at_once(engine: Engine) -> Engine:
    """Return an engine whose transactions see one state of the database; elsewhere than on SQLite they have to say so."""
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="REPEATABLE READ")


def _end(connection: Connection, run_id: str, generation: int) -> End | None:
    of_chain = select(t.chain).where(t.chain.c.run_id == run_id, t.chain.c.generation == generation)
    end = connection.execute(of_chain).mappings().first()
    if end is None:
        return None
    return End(Head(end["events"], Position(end["epoch"], end["seq"]), end["link"]), end["seal"], end["key_id"])


def _rows(connection: Connection, columns: Sequence[Any], run_id: str, generation: int) -> list[dict[str, Any]]:
    table, names = columns[0].table, [column.name for column in columns]
    wanted = select(*columns).where(table.c.run_id == run_id, table.c.generation == generation)
    order = [table.c.epoch, table.c.seq] if table is t.event else list(table.primary_key.columns)
    return [dict(zip(names, row, strict=True)) for row in connection.execute(wanted.order_by(*order))]
