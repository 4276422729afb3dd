"""The auditor: compares the counters in Redis with the ledger at one position of the log, tells of differences, and mends nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Final

from sqlalchemy import Engine, select
from sqlalchemy.engine import Connection

from cost.audit import Counters, Difference, book_of, differing_books, differing_months, differing_purse, differing_totals
from cost.period import day_of, first_of_month_before, name_of
from cost.task_ledger import TASK_PREFIX
from orchestrator import keys
from orchestrator.recorder.projection import Entry, project
from orchestrator.store import ledger
from orchestrator.store import tables as t
from orchestrator.store.position import START, Position
from orchestrator.store.read import open_record, tenants
from orchestrator.store.writer import read_cursor
from tenancy.errors import Unavailable
from tenancy.link import Link
from tenancy.log import append

TENANTS_A_TICK: Final = 20
RUNS_A_TICK: Final = 20
"""Purses of one tenant that a tick compares with the ledger."""
TICK_S: Final = 2.0
"""A tick begins no other tenant after this long."""

LOOKED_THROUGH_MAX: Final = 5_000
TAIL_MAX: Final = 5_000
"""Events that the record may be ahead of the counters that it is compared with."""
TRIES: Final = 5
CATCH_UP_S: Final = 5.0
POLL_S: Final = 0.01
NAMED_MAX: Final = 20
RUNS_LOOKED_AT: Final = 2_000
"""Runs of a day whose events are compared with their entries, when that day differs."""

_RECORDED_BY_RECOVERY = "recovery"


class Auditor:
    """Audits tenants. Safe to run at any time, several at once. Raises Unavailable, Fenced between two epochs."""

    def __init__(self, link: Link, engine: Engine, every_s: float = 60.0) -> None:
        self.link = link
        # Elsewhere than on SQLite a transaction does not see one state of the database unless it says so.
        self.engine = engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="REPEATABLE READ")
        self.every_s = every_s

    def tick(self) -> list[Difference]:
        """Audit the tenants whose turn it is: their last two days, another one, and some of their runs; report what differs.

        Turns go by Redis's clock, so that nobody has to remember whose turn it was.
        """
        began, seconds = time.monotonic(), int(self.link.read("TIME")[0])
        turn, today = int(seconds / self.every_s), day_of(seconds * 1000)
        first = first_of_month_before(today)
        names = [each.id for each in tenants(self.engine)]
        found: list[Difference] = []
        for number in range(min(TENANTS_A_TICK, len(names))):
            if time.monotonic() - began > TICK_S:
                break
            name = names[(turn * TENANTS_A_TICK + number) % len(names)]
            found += self.audit(name, {today, max(first, today - 1), first + turn % (today - first + 1)}, RUNS_A_TICK, turn)
        return found

    def audit(self, tenant: str, days: Iterable[int] | None = None, runs_max: int | None = None, turn: int = 0) -> list[Difference]:
        """Compare a tenant's counters with its ledger, report what differs as incidents, and return it.

        days: whose books are compared with their entries (since 1970-01-01 UTC); all of this month and the last unless said.
        runs_max: how many purses are compared with theirs, another part of them with each `turn`; all unless said.
        Raises Unavailable where the record does not catch up.
        """
        for _ in range(TRIES):
            today = day_of(int(self.link.read("TIME")[0]) * 1000)
            first = first_of_month_before(today)
            counters = Counters.of(self.link.call("cost/audit", tenant, first, today, LOOKED_THROUGH_MAX))
            self._catch_up(Position(counters.epoch, counters.seq))
            with self._at(counters) as point:
                if point is None:
                    continue
                found = _compare(point, counters, tenant, range(first, today + 1) if days is None else sorted(days), runs_max, turn)
            self._report(found)
            return found
        raise Unavailable(f"the counters of tenant {tenant!r} and the record were not at one position {TRIES} times; try again later")

    def _catch_up(self, position: Position) -> None:
        until = time.monotonic() + CATCH_UP_S
        while (Position.parse(text) if (text := self.link.read("GET", keys.RECORDED)) else START) < position:
            if time.monotonic() > until:
                raise Unavailable(f"the record did not come as far as {position} within {CATCH_UP_S:g} s; is the recorder running?")
            time.sleep(POLL_S)

    @contextmanager
    def _at(self, counters: Counters) -> Iterator[_Point | None]:
        """Give the record as it was at the position of the counters; None where it has gone too far beyond, or began an epoch."""
        with open_record(self.engine) as connection:
            cursor = read_cursor(connection)
            if cursor.epoch != counters.epoch or not 0 <= cursor.seq - counters.seq <= TAIL_MAX:
                yield None
                return
            later = ledger.texts_between(connection, counters.epoch, counters.seq, cursor.seq)
            changes = project(Entry(Position(counters.epoch, seq), text) for seq, text in later)
            yield _Point(connection, changes.ledger)

    def _report(self, found: Sequence[Difference]) -> None:
        for difference in found:
            with open_record(self.engine) as connection:
                known = connection.execute(select(t.incident.c.id).where(t.incident.c.id == difference.id)).first()
            if known is None:
                detail = {name: value for name, value in asdict(difference).items() if name not in ("day", "rg")}
                append(
                    self.link,
                    {"t": "ledger.differs", "tenant": difference.tenant, "incident": difference.id, "detail": json.dumps(detail)},
                )


class _Point:
    """The ledger at one position: what is on record without what came later."""

    def __init__(self, connection: Connection, later: Sequence[Mapping[str, Any]]) -> None:
        self.connection = connection
        self.later = later
        self._ids = {row["id"] for row in later}

    def book(self, tenant: str, day: int) -> dict[str, int]:
        """Return what a day's book must be."""
        book = book_of(ledger.sums_of_days(self.connection, tenant, [day]))
        book.subtract(book_of(row for row in self.later if row["tenant"] == tenant and row["day"] == day))
        return {name: micros for name, micros in book.items() if micros}

    def entries(self, rg: str) -> list[dict[str, Any]]:
        """Return the entries of a run."""
        run_id, _, generation = rg.rpartition(".")
        return [row for row in ledger.run_entries(self.connection, run_id, int(generation)) if row["id"] not in self._ids]


def _compare(point: _Point, counters: Counters, tenant: str, days: Iterable[int], runs_max: int | None, turn: int) -> list[Difference]:
    found: list[Difference] = []
    for day in days:
        kept = {name: micros for name, micros in counters.books.get(str(day), {}).items() if micros}
        found += differing_books(tenant, day, name_of(day), kept, point.book(tenant, day))
    found += differing_months(counters, tenant)
    purses = counters.purses or ()
    is_task = {purse.rg: purse.rg.startswith(TASK_PREFIX) for purse in purses}
    found += differing_totals(counters, tenant, is_task)
    if runs_max is not None and len(purses) > runs_max:
        start = turn * runs_max % len(purses)
        purses = [*purses[start:], *purses[:start]][:runs_max]
    for purse in purses:
        found += differing_purse(tenant, purse, point.entries(purse.rg), is_task=is_task[purse.rg])
    # Looking for the entries costs more than comparing: done only where something differs.
    looked: dict[object, tuple[str, tuple[str, ...]]] = {}
    named: list[Difference] = []
    for each in found:
        if not each.entries and (each.day is not None or each.rg):
            place = each.rg or each.day
            if place not in looked:
                looked[place] = _look(point.connection, each)
            why, entries = looked[place]
            if not entries:
                why, entries = "the ledger is what the events say: the counter is off", _of_counter(point.connection, each)
            named.append(replace(each, why=why, entries=entries))
        else:
            named.append(each)
    return named


def _look(connection: Connection, difference: Difference) -> tuple[str, tuple[str, ...]]:
    """Compare the entries of a day, or of a run, with the events that they come from; return what is wrong, and which of them are."""
    columns = (t.ledger.c.run_id, t.ledger.c.generation)
    if difference.rg:
        name, _, number = difference.rg.rpartition(".")
        runs = [(name, int(number))]
        stored = ledger.run_entries(connection, *runs[0])
    else:
        of_day = (t.ledger.c.tenant == difference.tenant, t.ledger.c.day == difference.day)
        recent = select(*columns).where(*of_day, t.ledger.c.run_id != "").distinct().order_by(*columns).limit(RUNS_LOOKED_AT)
        runs = [(row.run_id, row.generation) for row in connection.execute(recent)]
        stored = [dict(row) for row in connection.execute(select(t.ledger).where(*of_day)).mappings()]
        stored = [row for row in stored if not row["run_id"] or (row["run_id"], row["generation"]) in set(runs)]
    events: list[Entry] = []
    for run_id, generation in runs:
        events += _events(connection, t.event.c.run_id == run_id, t.event.c.generation == generation)
    if not difference.rg:
        events += _events(connection, t.event.c.tenant == difference.tenant, t.event.c.type == "money.adjusted")
    expected = {row["id"]: row for row in project(events).ledger if difference.rg or row["day"] == difference.day}
    by_id = {row["id"]: row for row in stored}
    missing = sorted(set(expected) - set(by_id))
    extra = sorted(name for name in set(by_id) - set(expected) if by_id[name]["by"] != _RECORDED_BY_RECOVERY)
    names = ("kind", "category", "amount", "day", "released", "to_hold")
    changed = sorted(name for name in set(by_id) & set(expected) if any(by_id[name][each] != expected[name][each] for each in names))
    told = {"missing in the ledger": missing, "in the ledger without an event": extra, "not what its event says": changed}
    return ", ".join(why for why, ids in told.items() if ids), tuple([*missing, *extra, *changed][:NAMED_MAX])


def _events(connection: Connection, *where: Any) -> list[Entry]:
    wanted = select(t.event.c.epoch, t.event.c.seq, t.event.c.data).where(*where).order_by(t.event.c.epoch, t.event.c.seq)
    return [Entry(Position(row.epoch, row.seq), row.data) for row in connection.execute(wanted)]


def _of_counter(connection: Connection, difference: Difference) -> tuple[str, ...]:
    """Return the newest entries that a counter is the sum of."""
    name = difference.what.rpartition(" ")[2]
    if difference.rg:
        run_id, _, generation = difference.rg.rpartition(".")
        rows = sorted(ledger.run_entries(connection, run_id, int(generation)), key=lambda row: row["at"], reverse=True)
        return tuple(row["id"] for row in rows[:NAMED_MAX])
    assert difference.day is not None
    kinds = {"reserved": ("reserve", "extend", "settle", "void", "expire"), "waste": ("waste",)}.get(name, ledger.CHARGES)
    category = name.removeprefix("c:") if name.startswith("c:") else ""
    return tuple(ledger.newest_entries(connection, difference.tenant, difference.day, kinds, category, NAMED_MAX))
