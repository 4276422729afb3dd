"""Reading the ledger: entries of a month, charges of executions, sums that the auditor compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from sqlalchemy import Engine, and_, select
from sqlalchemy.engine import Connection

from cost.period import day_of

from . import tables as t
from .read import open_record
from .sums import total

READ_AT_ONCE = 1_000
CHARGES = ("settle", "waste", "adjust")
COLUMNS: tuple[str, ...] = tuple(t.ledger.c.keys())
"""The columns of an entry."""

_EXECUTION = ("run_id", "generation", "node_id", "attempt")
_EPOCH = date(1970, 1, 1).toordinal()


def number_of(day: date) -> int:
    """Return a day as the ledger counts it: days since 1970-01-01 UTC."""
    return day.toordinal() - _EPOCH


def month_days(month: date) -> range:
    """Return the days of a month, by its first one."""
    following = date(month.year + month.month // 12, month.month % 12 + 1, 1)
    return range(number_of(month), number_of(following))


def entries(engine: Engine, tenant: str, month: date) -> Iterator[Mapping[str, Any]]:
    """Yield each entry of a tenant's month (its first day) by day, time and id, reading a thousand at once. Raises Unavailable."""
    with open_record(engine) as connection:
        for day in month_days(month):  # sorted a day at a time: the index has the days
            wanted = select(t.ledger).where(t.ledger.c.tenant == tenant, t.ledger.c.day == day).order_by(t.ledger.c.at, t.ledger.c.id)
            for row in _streamed(connection, wanted):
                yield dict(row)


def charges(engine: Engine, tenant: str, first: int, last: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the settlements of each execution that was begun in the days `first` to `last`: entries with its usage (`lines`, or None).

    Raises Unavailable.
    """
    with open_record(engine) as connection:
        group: list[dict[str, Any]] = []
        for row in _streamed(connection, _charges().where(t.ledger.c.tenant == tenant, t.ledger.c.day.between(first, last))):
            if group and any(group[0][name] != row[name] for name in _EXECUTION):
                yield from _whole(connection, group, last)
                group = []
            group.append(dict(row))
        if group:
            yield from _whole(connection, group, last)


def _charges() -> Any:
    of_execution = and_(*(t.usage.c[name] == t.ledger.c[name] for name in _EXECUTION))
    settled = select(t.ledger, t.usage.c.lines).join(t.usage, of_execution, isouter=True).where(t.ledger.c.kind.in_(("settle", "waste")))
    return settled.order_by(*(t.ledger.c[name] for name in _EXECUTION), t.ledger.c.day, t.ledger.c.id)


def _whole(connection: Connection, group: list[dict[str, Any]], last: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the execution of `group` with what it was charged outside the days that were read; not one that began before them."""
    if group[0]["id"].endswith(f".{group[0]['period']}"):
        return  # so end only entries of a later part
    if day_of(max(row["at"] for row in group)) > last:
        of_execution = (t.ledger.c[name] == group[0][name] for name in _EXECUTION)
        group = [dict(row) for row in connection.execute(_charges().where(*of_execution)).mappings()]
    yield group


def repriced(engine: Engine, tenant: str, first: int) -> Iterator[Mapping[str, Any]]:
    """Yield the adjustments that repricing made in days since `first`: id, amount, category, day. Raises Unavailable."""
    columns = (t.ledger.c.id, t.ledger.c.amount, t.ledger.c.category, t.ledger.c.day)
    wanted = select(*columns).where(
        t.ledger.c.tenant == tenant, t.ledger.c.day >= first, t.ledger.c.kind == "adjust", t.ledger.c.price_version != ""
    )
    with open_record(engine) as connection:
        for row in _streamed(connection, wanted):
            yield dict(row)


def _streamed(connection: Connection, wanted: Any) -> Any:
    return connection.execute(wanted, execution_options={"yield_per": READ_AT_ONCE}).mappings()


def sums_of_days(connection: Connection, tenant: str, days: Iterable[int]) -> list[Mapping[str, Any]]:
    """Return the sums of a tenant's entries of some days by day, kind and category: amount, released."""
    columns = (t.ledger.c.day, t.ledger.c.kind, t.ledger.c.category)
    sums = select(*columns, total(t.ledger.c.amount).label("amount"), total(t.ledger.c.released).label("released"))
    wanted = sums.where(t.ledger.c.tenant == tenant, t.ledger.c.day.in_(list(days))).group_by(*columns)
    return [dict(row) for row in connection.execute(wanted).mappings()]


def run_entries(connection: Connection, run_id: str, generation: int) -> list[dict[str, Any]]:
    """Return every entry of a run, or of an ordinary task."""
    of_run = select(t.ledger).where(t.ledger.c.run_id == run_id, t.ledger.c.generation == generation)
    return [dict(row) for row in connection.execute(of_run).mappings()]


def texts_between(connection: Connection, epoch: int, after: int, until: int) -> list[tuple[int, str]]:
    """Return sequence and text of the events of an epoch after one sequence and up to another."""
    wanted = select(t.event.c.seq, t.event.c.data).where(t.event.c.epoch == epoch, t.event.c.seq > after, t.event.c.seq <= until)
    return [(row.seq, row.data) for row in connection.execute(wanted.order_by(t.event.c.seq))]


def newest_entries(connection: Connection, tenant: str, day: int, kinds: Iterable[str], category: str, most: int) -> list[str]:
    """Return the ids of a day's newest entries of some kinds, and of one category unless that is ''."""
    wanted = select(t.ledger.c.id).where(t.ledger.c.tenant == tenant, t.ledger.c.day == day, t.ledger.c.kind.in_(list(kinds)))
    if category:
        wanted = wanted.where(t.ledger.c.category == category)
    return list(connection.execute(wanted.order_by(t.ledger.c.at.desc(), t.ledger.c.id).limit(most)).scalars())
