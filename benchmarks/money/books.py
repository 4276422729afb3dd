"""Three accounts of the same money: what events say, what the ledger's entries sum to, what Redis counts. Pure, but for `read`.

A book is what a tenant's day (since 1970-01-01 UTC) or month (`m202611`) comes to: `settled`, `reserved`, `waste` and `c:{category}`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from sqlalchemy import Connection, select

from cost.period import month_of
from orchestrator.store import tables as t

Key = tuple[str, int, str, int]
"""An execution: run, generation, node, attempt."""
Books = dict[tuple[str, str], dict[str, int]]
"""By tenant and book, without zeros."""
Rows = list[dict[str, Any]]


@dataclass
class Execution:
    """What events say of an execution's money. `parts` and `charged` are by day; `beyond` is by day what it cost beyond its reservation."""

    tenant: str
    state: str = "open"
    parts: Counter[int] = field(default_factory=Counter)
    charged: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wasted: Counter[int] = field(default_factory=Counter)
    beyond: Counter[int] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    """How often it was settled, void and wasted."""

    @property
    def cats(self) -> dict[str, int]:
        """What it was charged in all, by category."""
        found: Counter[str] = Counter()
        for charged in self.charged.values():
            found.update(charged)
        return dict(found)


@dataclass
class Record:
    """What SQL has: events in their order, entries of the ledger, and the live runs that have a purse."""

    events: Rows
    ledger: Rows
    live: Rows


@dataclass
class Counted:
    """What Redis has: books, tenants' counters by name, purses by `{run}.{gen}`."""

    books: Books
    tenants: dict[str, dict[str, int]]
    purses: dict[str, dict[str, int]]


def read_record(connection: Connection) -> Record:
    """Read what SQL has."""
    events = [json.loads(text) for text in connection.execute(select(t.event.c.data).order_by(t.event.c.epoch, t.event.c.seq)).scalars()]
    ledger = [dict(row) for row in connection.execute(select(t.ledger)).mappings()]
    live = select(t.run.c.run_id, t.run.c.generation, t.run.c.tenant).where(t.run.c.status.in_(t.LIVE), t.run.c.hold.is_not(None))
    return Record(events, ledger, [dict(row) for row in connection.execute(live).mappings()])


def read_counters(client: redis.Redis, tenants: Iterable[str], live: Rows) -> Counted:
    """Read what Redis counts of tenants, and of the purses of runs that are live."""
    counted = Counted({}, {}, {})
    for tenant in tenants:
        row: Any = client.hmget(f"hg1:tenant:{tenant}", ["held", "reserved", "running"])
        counted.tenants[tenant] = {name: int(value or 0) for name, value in zip(("held", "reserved", "running"), row, strict=True)}
        for key in client.scan_iter(f"hg1:spent:{tenant}:*", count=1000):
            book: Any = client.hgetall(key)
            counted.books[tenant, str(key).rsplit(":", 1)[1]] = {name: int(value) for name, value in book.items() if int(value)}
    for run in live:
        rg = f"{run['run_id']}.{run['generation']}"
        names = ("hold", "reserved", "spent", "open")
        row = client.hmget(f"hg1:purse:{rg}", list(names))
        counted.purses[rg] = {name: int(value or 0) for name, value in zip(names, row, strict=True)}
    counted.books = {key: book for key, book in counted.books.items() if book}
    return counted


def executions(events: Rows) -> dict[Key, Execution]:
    """Return what events say of every execution; a rebuild gives back what was open."""
    found: dict[Key, Execution] = {}
    for event in events:
        kind = event["t"]
        if kind == "epoch.opened" and event.get("rebuilt"):
            for each in found.values():
                each.state = "void" if each.state == "open" else each.state
        if kind == "money.adjusted":
            # No execution: what was corrected has the books of its day alone.
            at = ("", 0, f"adjust.{event['tenant']}.{event['id']}", month_of(int(event["day"])))
            one = found.setdefault(at, Execution(event["tenant"], "adjusted"))
            one.ends["settled"] += 1
            one.charged[int(event["day"])][event["cat"]] += int(event["amount"])
            one.beyond[int(event["day"])] += max(0, int(event["amount"]))
        if kind not in ("node.began", "money.reserved", "money.extended", "money.settled", "money.voided"):
            continue
        key = (event["run"], int(event["gen"]), event["node"], int(event["attempt"]))
        if kind in ("node.began", "money.reserved"):
            found[key] = Execution(event["tenant"], parts=Counter({int(event["day"]): int(event["amount"])}))
            continue
        one = found[key]
        if kind == "money.extended":
            one.parts[int(event["day"])] += int(event["amount"])
        elif kind == "money.voided":
            one.state = "void"
            one.ends["void"] += 1
        else:
            _charge(one, event)
    return found


def _charge(one: Execution, event: Mapping[str, Any]) -> None:
    wasted = event["kind"] == "waste"
    one.state = one.state if wasted else "settled"
    one.ends["waste" if wasted else "settled"] += 1
    parts = event.get("parts") or [event]
    for part in parts:
        cats = {name: int(amount) for name, amount in dict(part["cats"] or {}).items()}
        one.charged[int(part["day"])].update(cats)
        if wasted:
            one.wasted[int(part["day"])] += sum(cats.values())
    one.beyond[int(parts[-1]["day"])] += max(0, int(event["amount"]) - int(event["reserved"]))


def books_of_events(found: Iterable[Execution]) -> Books:
    """Return what the events come to."""
    books: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one in found:
        for day in {*one.parts, *one.charged}:
            sums: Counter[str] = Counter({f"c:{name}": amount for name, amount in one.charged.get(day, {}).items()})
            sums["settled"] = sum(one.charged.get(day, {}).values())
            sums["waste"] = one.wasted[day]
            sums["reserved"] = one.parts[day] if one.state == "open" else 0
            for book in (str(day), f"m{month_of(day)}"):
                books[one.tenant, book].update(sums)
    return _plain(books)


def books_of_ledger(ledger: Rows) -> Books:
    """Return what the entries come to."""
    books: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in ledger:
        sums: Counter[str] = Counter(reserved=-row["released"])
        if row["kind"] in ("reserve", "extend"):
            sums["reserved"] += row["amount"]
        elif row["kind"] in ("settle", "waste", "adjust"):
            sums["settled"] = row["amount"]
            sums["waste"] = row["amount"] if row["kind"] == "waste" else 0
            if row["category"]:
                sums[f"c:{row['category']}"] = row["amount"]
        for book in (str(row["day"]), f"m{month_of(row['day'])}"):
            books[row["tenant"], book].update(sums)
    return _plain(books)


def _plain(books: Mapping[tuple[str, str], Counter[str]]) -> Books:
    plain = {key: {name: amount for name, amount in book.items() if amount} for key, book in books.items()}
    return {key: book for key, book in plain.items() if book}


def disagreements(record: Record, counted: Counted) -> list[str]:
    """Return where events, ledger and counters do not agree to the micro, and executions that were charged more than once."""
    found = executions(record.events)
    wrong = []
    for name, ends in ((key, one.ends) for key, one in found.items()):
        if ends["settled"] > 1 or ends["void"] > 1 or ends["waste"] > 1 or (ends["settled"] and ends["void"]):
            wrong.append(f"{name}: charged or closed more than once: {dict(ends)}")
    said = {"events": books_of_events(found.values()), "ledger": books_of_ledger(record.ledger), "Redis": counted.books}
    known = set(counted.tenants)
    for tenant, book in sorted({key for books in said.values() for key in books if key[0] in known}):
        views = {who: books.get((tenant, book), {}) for who, books in said.items()}
        if any(view != views["events"] for view in views.values()):
            wrong.append(f"{tenant} {book}: {views}")
        ledger = views["ledger"]
        if sum(amount for name, amount in ledger.items() if name.startswith("c:")) != ledger.get("settled", 0):
            wrong.append(f"{tenant} {book}: categories do not add up to what is settled: {ledger}")
    return wrong + _holds(record, counted)


def _holds(record: Record, counted: Counted) -> list[str]:
    """Return the holds, purses and places that are not what the entries come to."""
    wrong = []
    purses: dict[str, Counter[str]] = defaultdict(Counter)
    tenants: dict[str, Counter[str]] = defaultdict(Counter)
    for row in record.ledger:
        opened = row["amount"] if row["kind"] in ("reserve", "extend") else 0
        moved = Counter(hold=row["to_hold"], reserved=opened - row["released"])
        moved["spent"] = row["amount"] if row["kind"] in ("settle", "waste", "adjust") else 0
        purses[f"{row['run_id']}.{row['generation']}"].update(moved)
        tenants[row["tenant"]].update(held=row["to_hold"], reserved=opened - row["released"])
    for run in record.live:
        tenants[run["tenant"]]["running"] += 1
        rg = f"{run['run_id']}.{run['generation']}"
        wrong += [
            f"purse {rg}: {name} is {counted.purses[rg][name]}, the entries come to {purses[rg][name]}"
            for name in ("hold", "reserved", "spent")
            if counted.purses[rg][name] != purses[rg][name]
        ]
    for tenant, counters in counted.tenants.items():
        for name, value in counters.items():
            if value != tenants[tenant][name]:
                wrong.append(f"{tenant}: {name} is {value}, the entries come to {tenants[tenant][name]}")
    return wrong


def beyond_limits(found: Iterable[Execution], limits: Mapping[str, tuple[int, int | None]]) -> list[str]:
    """Return the days and months in which committed is above the limit by more than executions cost beyond their reservations.

    limits: of the day and the month (None: none), by tenant.
    """
    committed: Counter[tuple[str, str]] = Counter()
    allowed: Counter[tuple[str, str]] = Counter()
    for one in found:
        for day in {*one.parts, *one.charged, *one.beyond}:
            for book in (str(day), f"m{month_of(day)}"):
                committed[one.tenant, book] += sum(one.charged.get(day, {}).values()) + (one.parts[day] if one.state == "open" else 0)
                allowed[one.tenant, book] += one.beyond[day]
    wrong = []
    for (tenant, book), amount in committed.items():
        limit = limits[tenant][1 if book.startswith("m") else 0]
        if limit is not None and amount > limit + allowed[tenant, book]:
            wrong.append(f"{tenant} {book}: committed {amount}, limit {limit}, beyond reservations {allowed[tenant, book]}")
    return wrong
