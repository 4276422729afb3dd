"""Reading what reports are made of, in one transaction, so that all of it stands at one position of the log; and reports that were made."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select, text
from sqlalchemy.engine import Connection

from cost.levels import HEALTHY, level_rows, read_level
from tenancy.errors import Unknown
from tenancy.policy import Policy

from . import tables as t
from .ledger import CHARGES
from .position import Position
from .read import open_record
from .sums import total
from .writer import read_cursor

LABELS_AT_ONCE = 500
LEVELS_READ = 5_000


@contextmanager
def standing(engine: Engine) -> Iterator[tuple[Connection, Position]]:
    """Give a connection that sees the record at one moment, and the position of the log that this is. Raises Unavailable."""
    with open_record(engine) as connection:
        if connection.dialect.name == "postgresql":  # SQLite's transactions are like that anyway
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection, read_cursor(connection)


@dataclass(frozen=True)
class Charge:
    """What a run, or an ordinary task or correction (graph None), was charged in a period, in micros by category; of it `waste`."""

    run_id: str
    generation: int
    graph: str | None
    state: str
    labels: Mapping[str, str]
    by_category: Mapping[str, int]
    waste: int

    @property
    def micros(self) -> int:
        """The sum."""
        return sum(self.by_category.values())


@dataclass(frozen=True)
class Told:
    """A report that was made: about what, when (ms), and standing where in the log."""

    id: str
    scope: str
    period: str
    made_at: int
    position: Position


def charges_in(connection: Connection, tenant: str, days: range) -> list[Charge]:
    """Return what a tenant was charged in some days, by run."""
    c = t.ledger.c
    columns = (c.run_id, c.generation, c.category, c.kind)
    mine = (c.tenant == tenant) & c.day.in_(list(days)) & c.kind.in_(CHARGES)
    sums: dict[tuple[str, int], dict[str, int]] = {}
    waste: dict[tuple[str, int], int] = {}
    for row in connection.execute(select(*columns, total(c.amount).label("amount")).where(mine).group_by(*columns)):
        key, amount = (row.run_id, row.generation), int(row.amount)
        if amount:
            of_run = sums.setdefault(key, {})
            of_run[row.category] = of_run.get(row.category, 0) + amount
            waste[key] = waste.get(key, 0) + (amount if row.kind == "waste" else 0)
    known = _runs(connection, {run_id for run_id, _ in sums})
    found = []
    for (run_id, generation), by_category in sums.items():
        graph, state, labels = known.get((run_id, generation), (None, "", {}))
        found.append(Charge(run_id, generation, graph, state, labels, by_category, waste[run_id, generation]))
    return sorted(found, key=lambda each: (-each.micros, each.run_id, each.generation))


def _runs(connection: Connection, ids: Iterable[str]) -> dict[tuple[str, int], tuple[str, str, dict[str, str]]]:
    wanted = sorted(ids)
    found = {}
    c = t.run.c
    for first in range(0, len(wanted), LABELS_AT_ONCE):
        some = select(c.run_id, c.generation, c.graph_name, c.status, c.outcome, c.labels)
        for row in connection.execute(some.where(c.run_id.in_(wanted[first : first + LABELS_AT_ONCE]))):
            state = row.outcome if row.status == "ended" and row.outcome else row.status
            labels = {str(name): str(value) for name, value in json.loads(row.labels or "{}").items()}
            found[row.run_id, row.generation] = (row.graph_name, state, labels)
    return found


def charged_by_day(connection: Connection, tenant: str | None, days: range) -> dict[int, dict[str, dict[str, int]]]:
    """Return what each tenant (or one) was charged in some days: day, tenant, category to micros; what comes to nothing is left out."""
    c = t.ledger.c
    columns = (c.day, c.tenant, c.category)
    mine = c.day.in_(list(days)) & c.kind.in_(CHARGES)
    names = [tenant] if tenant is not None else list(connection.execute(select(t.tenant.c.id)).scalars())
    found: dict[int, dict[str, dict[str, int]]] = {}
    for name in names:  # by tenant: the index has them first
        sums = select(*columns, total(c.amount).label("amount")).where(mine, c.tenant == name).group_by(*columns)
        for row in connection.execute(sums):
            if row.amount:
                found.setdefault(row.day, {}).setdefault(row.tenant, {})[row.category] = int(row.amount)
    return found


def runs_ended(connection: Connection, tenant: str | None, start_ms: int, end_ms: int) -> list[Any]:
    """Return the runs of a tenant (None: of all) that ended, or were refused, in a time: what is said of each of them."""
    c = t.run.c
    columns = (
        c.run_id,
        c.generation,
        c.tenant,
        c.graph_name,
        c.status,
        c.outcome,
        c.submitted_at,
        c.started_at,
        c.finished_at,
        c.cost_micros,
    )
    mine = (c.finished_at >= start_ms) & (c.finished_at < end_ms)
    wanted = select(*columns).where(mine if tenant is None else mine & (c.tenant.concat("") == tenant))
    return list(connection.execute(wanted).all())


def runs_live(connection: Connection, tenant: str, most: int) -> list[Any]:
    """Return the runs of a tenant that are under way, oldest first."""
    c = t.run.c
    columns = (c.run_id, c.generation, c.graph_name, c.started_at, c.cost_micros)
    mine = c.status.in_(("running", "cancelling")) & (c.tenant.concat("") == tenant)
    return list(connection.execute(select(*columns).where(mine).order_by(c.submitted_at).limit(most)).all())


def runs_submitted(connection: Connection, tenant: str | None, start_ms: int, end_ms: int) -> int:
    """Return how many generations of runs were submitted in a time."""
    c = t.run.c
    mine = (c.submitted_at >= start_ms) & (c.submitted_at < end_ms)
    counted = select(func.count()).select_from(t.run).where(mine if tenant is None else mine & (c.tenant.concat("") == tenant))
    return int(connection.execute(counted).scalar() or 0)


def refusals_in(connection: Connection, tenant: str, start_ms: int, end_ms: int, actions: Iterable[str]) -> int:
    """Return how often a run or node of a tenant was refused in a time."""
    c = t.audit.c
    mine = (c.tenant == tenant) & (c.at >= start_ms) & (c.at < end_ms) & c.action.in_(list(actions))
    return int(connection.execute(select(func.count()).select_from(t.audit).where(mine)).scalar() or 0)


def worker_ms(connection: Connection, start_ms: int, end_ms: int) -> dict[str, int]:
    """Return how long workers worked for each tenant: the last attempts of the nodes of runs that ended in a time, in ms."""
    n, r = t.node.c, t.run.c
    of_run = (n.run_id == r.run_id) & (n.generation == r.generation)
    took = total(n.finished_at - n.started_at).label("took")
    ended = (r.finished_at >= start_ms) & (r.finished_at < end_ms) & n.started_at.is_not(None) & n.finished_at.is_not(None)
    rows = connection.execute(select(r.tenant, took).select_from(t.run.join(t.node, of_run)).where(ended).group_by(r.tenant))
    return {row.tenant: int(row.took) for row in rows}


def policy_at(connection: Connection, tenant: str, at_ms: int) -> Policy:
    """Return the policy that held at a moment; the first one before that. Raises Unknown."""
    c = t.policy.c
    mine = select(c.fields).where(c.tenant == tenant)
    held = connection.execute(mine.where(c.at < at_ms).order_by(c.version.desc()).limit(1)).scalar()
    fields = held or connection.execute(mine.order_by(c.version).limit(1)).scalar()
    if fields is None:
        raise Unknown(f"there is no tenant {tenant!r}")
    return Policy.model_validate_json(fields)


def level_of(connection: Connection, tenant: str, period: str) -> str:
    """Return the level that a tenant was at when a period ended, or is at."""
    of_levels = select(t.event.c.data).where(text(t.OF_LEVELS), t.event.c.tenant == tenant)
    told = connection.execute(of_levels.order_by(t.event.c.epoch.desc(), t.event.c.seq.desc()).limit(LEVELS_READ)).scalars().all()
    events = [event for data in reversed(told) if (event := json.loads(data)).get("period") == period]
    rows = level_rows(events).get(tenant, {})
    return next((read_level(row, period).name for row in rows.values()), HEALTHY)


def all_tenants(connection: Connection) -> list[Any]:
    """Return id, name and currency of each tenant, by id."""
    columns = (t.tenant.c.id, t.tenant.c.name, t.tenant.c.currency)
    return list(connection.execute(select(*columns).order_by(t.tenant.c.id)).all())


def first_day_ms(engine: Engine) -> int | None:
    """Return when the first event on record happened, None where there is none. Raises Unavailable."""
    with open_record(engine) as connection:
        return connection.execute(select(t.event.c.at).order_by(t.event.c.epoch, t.event.c.seq).limit(1)).scalar()


def periods_made(engine: Engine, scope: str) -> frozenset[str]:
    """Return the periods that have a report of a scope. Raises Unavailable."""
    with open_record(engine) as connection:
        return frozenset(connection.execute(select(t.report.c.period).where(t.report.c.scope == scope)).scalars())


def scopes_made(engine: Engine, period: str) -> frozenset[str]:
    """Return the scopes that have a report about a period. Raises Unavailable."""
    with open_record(engine) as connection:
        return frozenset(connection.execute(select(t.report.c.scope).where(t.report.c.period == period)).scalars())


def reports_since(engine: Engine, made_ms: int) -> list[Told]:
    """Return the reports that were made since then, oldest first. Raises Unavailable."""
    c = t.report.c
    wanted = select(c.id, c.scope, c.period, c.made_at, c.epoch, c.seq).where(c.made_at >= made_ms).order_by(c.made_at, c.id)
    with open_record(engine) as connection:
        return [Told(row.id, row.scope, row.period, row.made_at, Position(row.epoch, row.seq)) for row in connection.execute(wanted)]


def report_body(engine: Engine, name: str) -> dict[str, Any] | None:
    """Return a report as it was made, None where there is none. Raises Unavailable."""
    with open_record(engine) as connection:
        packed = connection.execute(select(t.report.c.body).where(t.report.c.id == name)).scalar()
    return None if packed is None else _unpacked(packed)


def report_before(connection: Connection, scope: str, kind: str, period: str) -> dict[str, Any] | None:
    """Return the newest report of a scope about a period of that kind before this one."""
    c = t.report.c
    earlier = select(c.body).where(c.scope == scope, c.kind == kind, c.period < period).order_by(c.period.desc()).limit(1)
    packed = connection.execute(earlier).scalar()
    return None if packed is None else _unpacked(packed)


def first_period(connection: Connection, scope: str, kind: str) -> str | None:
    """Return the first period of a kind that has a report of a scope, None where none has."""
    c = t.report.c
    return connection.execute(select(func.min(c.period)).where(c.scope == scope, c.kind == kind)).scalar()


def _unpacked(packed: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(zlib.decompress(packed))
    return body


def bodies(connection: Connection, scope: str, kind: str, first: str, last: str) -> Iterator[dict[str, Any]]:
    """Yield the reports of a scope about the periods of a kind from one to another."""
    c = t.report.c
    wanted = select(c.body).where(c.scope == scope, c.kind == kind, c.period >= first, c.period <= last).order_by(c.period)
    for packed in connection.execute(wanted).scalars():
        yield _unpacked(packed)
