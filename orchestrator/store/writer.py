"""The one writer of the record: a batch of changes and the cursor, in one transaction.

Statements go over many rows at once (SQLAlchemy Core, executemany). Whether a batch is applied is decided by the
cursor alone: it is moved by compare-and-set in the same transaction, so a batch is applied once or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from sqlalchemy import Table, and_, bindparam, delete, exists, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from cost.task_ledger import GENERATION

from . import tables as t
from .adopted import copy_adopted
from .changes import Changes, Row
from .position import START, Position
from .sums import total


class CursorMoved(Exception):
    """Another recorder moved the cursor; this one must read it again before it applies anything."""


def read_cursor(connection: Connection) -> Position:
    """Return the position of the last event in SQL; (0, 0) where none ever was."""
    row = connection.execute(select(t.cursor.c.epoch, t.cursor.c.seq).where(t.cursor.c.id == 1)).first()
    return START if row is None else Position(row.epoch, row.seq)


def move_cursor(connection: Connection, old: Position, new: Position) -> None:
    """Move the cursor from `old` to `new`; raises CursorMoved if it does not stand at `old`."""
    at_old = and_(t.cursor.c.id == 1, t.cursor.c.epoch == old.epoch, t.cursor.c.seq == old.seq)
    moved = connection.execute(update(t.cursor).where(at_old).values(epoch=new.epoch, seq=new.seq))
    if moved.rowcount != 1:
        raise CursorMoved(f"the cursor is no longer at {old}")


def write(connection: Connection, changes: Changes) -> None:
    """Write everything in `changes` except its requests, which are decided by who serves them."""
    if changes.rebuilt is not None:
        forget_executions(connection, changes.rebuilt)
    _many(connection, insert(t.event), changes.events)
    keep(connection, t.run, changes.new_runs)
    _many(connection, _RUN_UPDATE, [{f"to_{name}": value for name, value in row.items()} for row in changes.runs.values()])
    _many(connection, _node_upsert(connection.dialect.name), list(changes.nodes.values()))
    copy_adopted(connection, changes.adopted)
    keep(connection, t.ledger, changes.ledger)
    keep(connection, t.usage, changes.usage)
    keep(connection, t.decision, changes.decisions)
    _many(connection, _APPLIED, changes.applied)
    _pause(connection, changes.pauses)
    _many(connection, _FENCE_OVER, [{"over": scope} for scope in changes.fences])
    keep(connection, t.fence, list(changes.fences.values()))
    keep(connection, t.audit, [_owned(connection, row) for row in changes.audit])
    keep(connection, t.notice, changes.notices)
    _many(connection, _TRIED, changes.tries)
    keep(connection, t.incident, changes.incidents)


def keep(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Insert `rows`, all with the same columns; a row whose key is taken changes nothing."""
    if rows:
        connection.execute(_keeping(connection.dialect.name, table), rows)


def forget_executions(connection: Connection, at: int) -> None:
    """Expire every open reservation of a live run, or of an ordinary task, and make its running nodes due again.

    Said by an epoch that was rebuilt: it knows no lease of the epoch before, and refuses whoever still holds one.
    """
    aside, closing = t.ledger.alias(), t.ledger.alias()
    live = select(t.run.c.run_id).where(
        t.run.c.run_id == aside.c.run_id, t.run.c.generation == aside.c.generation, t.run.c.status.in_(t.LIVE)
    )
    execution = ("run_id", "generation", "node_id", "attempt")
    of_execution = (closing.c[name] == aside.c[name] for name in execution)
    closed = select(literal(1)).where(*of_execution, closing.c.kind.not_in(("reserve", "extend")))
    opened = (aside.c.kind.in_(("reserve", "extend")), or_(aside.c.generation == GENERATION, exists(live)), ~exists(closed))
    columns = [aside.c[name] for name in ("tenant", *execution, "day", "period")]
    amount = total(aside.c.amount)
    found = connection.execute(select(*columns, amount.label("amount")).where(*opened).group_by(*columns)).mappings()
    keep(connection, t.ledger, [_expired(dict(row), at) for row in found])
    running = select(t.run.c.run_id).where(
        t.run.c.run_id == t.node.c.run_id, t.run.c.generation == t.node.c.generation, t.run.c.status.in_(t.LIVE)
    )
    connection.execute(update(t.node).where(t.node.c.state == "running", exists(running)).values(state="due"))


def _expired(part: Mapping[str, Any], at: int) -> Row:
    """Return the entry that gives back what was open of an execution in one period; that of an ordinary task belongs to no hold."""
    micros = int(part["amount"])
    return {
        **part,
        "id": ".".join(str(part[name]) for name in ("run_id", "generation", "node_id", "attempt")) + f".expire.{part['period']}",
        "kind": "expire",
        "category": "",
        "amount": micros,
        "by": "recovery",
        "at": at,
        "price_version": "",
        "cause": "recovery",
        "released": micros,
        "to_hold": 0 if part["generation"] == GENERATION else micros,
    }


def _pause(connection: Connection, pauses: dict[str, Row | None]) -> None:
    _many(connection, _PAUSE_OVER, [{"over": scope} for scope in pauses])
    keep(connection, t.pause, [row for row in pauses.values() if row is not None])


def _owned(connection: Connection, row: Row) -> Row:
    """Return a row of the audit with the tenant of the run that its target names, where the event did not know it."""
    kind, _, rg = str(row["target"]).partition(":")
    if row["tenant"] is not None or kind != "run":
        return row
    return {**row, "tenant": connection.execute(select(t.run.c.tenant).where(t.run.c.run_id == rg.partition(".")[0]).limit(1)).scalar()}


def _many(connection: Connection, statement: Any, rows: list[Row]) -> None:
    if rows:
        connection.execute(statement, rows)


def _upsert(dialect: str, table: Table) -> Any:
    # Both dialects have the same ON CONFLICT, and SQLAlchemy has no neutral spelling of it.
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)


# Under way most batches are small: putting a statement together anew took longer than running it.
@cache
def _keeping(dialect: str, table: Table) -> Any:
    return _upsert(dialect, table).on_conflict_do_nothing()


@cache
def _node_upsert(dialect: str) -> Any:
    statement = _upsert(dialect, t.node)
    new, old = statement.excluded, t.node.c
    values: dict[str, Any] = {}
    for name in old.keys():  # noqa: SIM118 (a ColumnCollection iterates over columns, not names)
        if name in _SUMMED:
            values[name] = old[name] + new[name]
        elif name not in _NODE_KEY:
            values[name] = func.coalesce(new[name], old[name])
    values["queued_at"] = func.coalesce(old.queued_at, new.queued_at)
    return statement.on_conflict_do_update(index_elements=list(_NODE_KEY), set_=values)


def _updated(names: Iterable[str]) -> dict[str, Any]:
    return {name: func.coalesce(bindparam(f"to_{name}", type_=t.run.c[name].type), t.run.c[name]) for name in names}


_PAUSE_OVER = delete(t.pause).where(t.pause.c.scope == bindparam("over"))

_FENCE_OVER = delete(t.fence).where(t.fence.c.scope == bindparam("over"))

_TRIED = (
    update(t.notice)
    .where(t.notice.c.id == bindparam("tried"), t.notice.c.state == "pending")
    .values(state=bindparam("to_state"), tries=bindparam("to_tries"), due_at=bindparam("to_due"), error=bindparam("to_error"))
)

# What was applied of a decision is said once; a repeated event changes nothing.
_APPLIED = (
    update(t.decision)
    .where(t.decision.c.id == bindparam("decided"), t.decision.c.applied_at.is_(None))
    .values(applied_at=bindparam("to_applied_at"), applied=bindparam("to_applied"))
)

_NODE_KEY = ("run_id", "generation", "node_id")
_SUMMED = {"fails", "lost", *(name for name in t.node.c.keys() if name.startswith("cost_"))}  # noqa: SIM118

RUN_UPDATE: Final = (
    "status",
    "outcome",
    "reason",
    "started_at",
    "finished_at",
    "total",
    "budget",
    "hold",
    "estimate",
    "floor",
    "counts",
    "ranked",
    "timeout_s",
)
"""Columns of a run that take what a batch says of them, and stay where it says nothing."""

_RUN_UPDATE = (
    update(t.run)
    .where(t.run.c.run_id == bindparam("to_run_id"), t.run.c.generation == bindparam("to_generation"))
    .values(
        _updated(RUN_UPDATE)
        | {
            "cost_micros": t.run.c.cost_micros + bindparam("to_cost_micros"),
            "total": func.coalesce(bindparam("to_total"), t.run.c.total) + bindparam("to_grown"),
        }
    )
)
