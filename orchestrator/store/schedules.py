"""Reading schedules and their times from the record."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, bindparam, func, select
from sqlalchemy.engine import Connection

from orchestrator.schedules.due import DUE
from orchestrator.schedules.terms import Terms
from tenancy.errors import Unknown

from . import tables as t
from .read import open_record

RUNS_AT_ONCE = 500
"""Runs that one statement reads."""

_TERMS = tuple(Terms.__dataclass_fields__)


@dataclass(frozen=True)
class ScheduleView:
    """A schedule: its graph's name and digest, its terms, whether it is paused, and when its next time is due.

    Times are epoch seconds; next_at is None for a paused one, and where no time comes any more. version counts its changes.
    """

    tenant: str
    name: str
    graph: str
    digest: str
    terms: Terms
    paused: bool
    version: int
    created_at: float
    next_at: float | None


@dataclass(frozen=True)
class TickView:
    """What became of a time (`at`, epoch seconds): due, submitted, skipped, missed or refused, and why.

    status and outcome are those of its run, in its newest generation, submitted_at (epoch seconds) is its first one's; None without one.
    """

    at: float
    state: str
    reason: str | None
    run_id: str | None
    status: str | None
    outcome: str | None
    submitted_at: float | None


def schedules(engine: Engine, tenant: str | None = None) -> list[ScheduleView]:
    """Return all schedules, or those of a tenant, by tenant and name. Raises Unavailable."""
    statement = select(*_columns()).order_by(t.schedule.c.tenant, t.schedule.c.name)
    if tenant is not None:
        statement = statement.where(t.schedule.c.tenant == tenant)
    with open_record(engine) as connection:
        return [_view(dict(row)) for row in connection.execute(statement).mappings()]


def get_schedule(engine: Engine, tenant: str, name: str) -> ScheduleView:
    """Return a schedule. Raises Unknown and Unavailable."""
    for found in schedules(engine, tenant):
        if found.name == name:
            return found
    raise Unknown(f"tenant {tenant!r} has no schedule {name!r}; `headgate schedule list` names them")


def schedule_graph(engine: Engine, tenant: str, name: str) -> bytes:
    """Return the graph of a schedule, canonical JSON, with the scheduled time still open. Raises Unknown and Unavailable."""
    mine = (t.schedule.c.tenant == tenant) & (t.schedule.c.name == name)
    with open_record(engine) as connection:
        packed = connection.execute(select(t.schedule.c.spec).where(mine)).scalar()
    if packed is None:
        raise Unknown(f"tenant {tenant!r} has no schedule {name!r}; `headgate schedule list` names them")
    return zlib.decompress(packed)


def ticks(engine: Engine, tenant: str, name: str, limit: int = 20) -> list[TickView]:
    """Return what became of the newest times of a schedule, newest first. Raises Unavailable."""
    return newest_ticks(engine, [(tenant, name)], limit)[tenant, name]


def newest_ticks(engine: Engine, names: Sequence[tuple[str, str]], limit: int) -> dict[tuple[str, str], list[TickView]]:
    """Return the same of each of these schedules, by tenant and name. Raises Unavailable."""
    tick = t.tick.c
    columns = (tick.at, tick.state, tick.reason, tick.run_id)
    newest = (
        select(*columns).where(tick.tenant == bindparam("of"), tick.schedule == bindparam("called")).order_by(tick.at.desc()).limit(limit)
    )
    with open_record(engine) as connection:
        # One after the other: an index has those of each together and in their order, and would have to be read whole for all at once.
        found = {name: connection.execute(newest, {"of": name[0], "called": name[1]}).all() for name in names}
        runs = _runs(connection, sorted({row.run_id for rows in found.values() for row in rows if row.run_id is not None}))
    nothing = (None, None, None)
    return {
        name: [TickView(row.at / 1000, row.state, row.reason or None, row.run_id, *runs.get(row.run_id or "", nothing)) for row in rows]
        for name, rows in found.items()
    }


def _runs(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[str, str | None, float]]:
    """Status and outcome of the newest generation of each run, and when its first was submitted."""
    columns = (t.run.c.run_id, t.run.c.status, t.run.c.outcome, t.run.c.submitted_at)
    found: dict[str, tuple[str, str | None, float]] = {}
    for first in range(0, len(ids), RUNS_AT_ONCE):
        some = select(*columns).where(t.run.c.run_id.in_(ids[first : first + RUNS_AT_ONCE]))
        for row in connection.execute(some.order_by(t.run.c.run_id, t.run.c.generation)):
            submitted_at = found[row.run_id][2] if row.run_id in found else row.submitted_at / 1000
            found[row.run_id] = (row.status, row.outcome, submitted_at)
    return found


def to_decide(connection: Connection, now: int, limit: int) -> list[Mapping[str, Any]]:
    """Return the rows, without their graphs, of schedules with times that are due at `now` (ms), longest due first."""
    due = select(*_columns()).where(t.schedule.c.paused == 0, t.schedule.c.next_at <= now)
    return [dict(row) for row in connection.execute(due.order_by(t.schedule.c.next_at).limit(limit)).mappings()]


def live_runs(connection: Connection, tenant: str, name: str) -> int:
    """Return how many runs of a schedule are not over, in any generation."""
    joined = t.tick.join(t.run, t.run.c.run_id == t.tick.c.run_id)
    mine = (t.tick.c.tenant == tenant, t.tick.c.schedule == name, t.run.c.status.in_(t.LIVE))
    return int(connection.execute(select(func.count()).select_from(joined).where(*mine)).scalar() or 0)


def due_ticks(connection: Connection, tenant: str, name: str) -> list[Mapping[str, Any]]:
    """Return a schedule's times that are due and not submitted, in their order."""
    mine = (t.tick.c.tenant == tenant, t.tick.c.schedule == name, t.tick.c.state == DUE)
    return [dict(row) for row in connection.execute(select(t.tick).where(*mine).order_by(t.tick.c.at)).mappings()]


def with_due_ticks(connection: Connection, now: int) -> list[Mapping[str, Any]]:
    """Return the schedules that go on and have times to be submitted, or tried again, by `now` (ms); those that waited longest first."""
    oldest = (
        select(t.tick.c.tenant, t.tick.c.schedule, func.min(t.tick.c.at).label("oldest"))
        .where(t.tick.c.state == DUE, t.tick.c.retry_at <= now)
        .group_by(t.tick.c.tenant, t.tick.c.schedule)
        .subquery()
    )
    joined = t.schedule.join(oldest, (oldest.c.tenant == t.schedule.c.tenant) & (oldest.c.schedule == t.schedule.c.name))
    found = select(*_columns()).select_from(joined).where(t.schedule.c.paused == 0).order_by(oldest.c.oldest)
    return [dict(row) for row in connection.execute(found).mappings()]


def _columns() -> list[Any]:
    return [column for column in t.schedule.c if column.name != "spec"]


def _view(row: Mapping[str, Any]) -> ScheduleView:
    return ScheduleView(
        row["tenant"],
        row["name"],
        row["graph_name"],
        row["digest"],
        Terms(**{name: row[name] for name in _TERMS}),
        bool(row["paused"]),
        row["version"],
        row["created_at"] / 1000,
        None if row["paused"] or row["next_at"] is None else row["next_at"] / 1000,
    )
