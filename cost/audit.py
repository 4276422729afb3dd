"""What counters must be by the ledger: the pure half of the auditor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .period import month_of

CHARGED = ("settle", "waste", "adjust")
ASIDE = ("reserve", "extend")

Row = Mapping[str, Any]


class Purse(NamedTuple):
    """A purse in Redis, in micros: `open` counts executions that are not closed, `names` has them."""

    rg: str
    hold: int
    reserved: int
    spent: int
    open: int
    names: frozenset[str]


@dataclass(frozen=True)
class Counters:
    """A tenant's counters at one position of the log.

    books: fields by day or by month (`m202611`). purses: of its live runs and open tasks; None where there were too many to look through.
    """

    epoch: int
    seq: int
    held: int
    reserved: int
    running: int
    books: Mapping[str, Mapping[str, int]]
    purses: Sequence[Purse] | None

    @classmethod
    def of(cls, reply: Sequence[Any]) -> Counters:
        """Return what the script `cost/audit` said."""
        epoch, seq, (held, reserved, running), books, complete, purses = reply
        read = {str(name): dict(zip(row[::2], map(int, row[1::2]), strict=True)) for name, row in books}
        rows = [
            Purse(str(rg), int(hold), int(reserved), int(spent), int(opened), frozenset(names))
            for rg, hold, reserved, spent, opened, names in purses
        ]
        return cls(int(epoch), int(seq), int(held), int(reserved), int(running), read, rows if complete else None)


@dataclass(frozen=True)
class Difference:
    """A counter that is not what the ledger, or the counters below it, add up to; in micros, or a number of things.

    what: the counter, such as `spent:acme:2026-11-22 c:llm` or `purse:{run}.1 hold`. entries: those concerned, as far as could be told.
    why: how they are.
    """

    tenant: str
    what: str
    counter: int
    ledger: int
    why: str = ""
    entries: tuple[str, ...] = ()
    day: int | None = field(default=None, compare=False)
    rg: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """The same as long as the difference is the same."""
        return f"difference.{self.tenant}.{self.what.replace(' ', '.')}.{self.counter - self.ledger}"


def book_of(rows: Iterable[Row]) -> Counter[str]:
    """Return what a day's book must be by its entries, or by sums of them: settled, waste, c:{category}, reserved."""
    book: Counter[str] = Counter()
    for row in rows:
        kind, micros = row["kind"], int(row["amount"])
        if kind in CHARGED:
            book["settled"] += micros
            if row["category"]:
                book[f"c:{row['category']}"] += micros
        if kind == "waste":
            book["waste"] += micros
        book["reserved"] += (micros if kind in ASIDE else 0) - int(row["released"])
    return book


def differing_books(tenant: str, day: int, name: str, found: Mapping[str, int], expected: Mapping[str, int]) -> list[Difference]:
    """Return the fields of a day's book that are not what its entries add up to; `name` is the day as a person has it."""
    fields = sorted({*found, *expected})
    return [
        Difference(tenant, f"spent:{tenant}:{name} {field}", found.get(field, 0), expected.get(field, 0), day=day)
        for field in fields
        if found.get(field, 0) != expected.get(field, 0)
    ]


def differing_months(counters: Counters, tenant: str) -> list[Difference]:
    """Return the fields of months that are not the sums of their days."""
    sums: dict[str, Counter[str]] = {}
    for name, row in counters.books.items():
        if not name.startswith("m"):
            sums.setdefault(f"m{month_of(int(name))}", Counter()).update(row)
    found: list[Difference] = []
    for month in sorted({*sums, *(name for name in counters.books if name.startswith("m"))}):
        row, expected = counters.books.get(month, {}), sums.get(month, Counter())
        found += [
            Difference(tenant, f"spent:{tenant}:{month} {name}", row.get(name, 0), expected[name], "its days add up to that")
            for name in sorted({*row, *expected})
            if row.get(name, 0) != expected[name]
        ]
    return found


def differing_totals(counters: Counters, tenant: str, is_task: Mapping[str, bool]) -> list[Difference]:
    """Return which of held, reserved and running are not what the tenant's purses add up to."""
    if counters.purses is None:
        return []
    runs = [purse for purse in counters.purses if not is_task[purse.rg]]
    totals = {
        "held": (counters.held, sum(purse.hold for purse in counters.purses)),
        "reserved": (counters.reserved, sum(purse.reserved for purse in counters.purses)),
        "running": (counters.running, len(runs)),
    }
    concerned = tuple(f"{purse.rg}.hold" for purse in runs[:20])
    return [
        Difference(tenant, f"tenant:{tenant} {name}", found, expected, "its purses add up to that", concerned)
        for name, (found, expected) in totals.items()
        if found != expected
    ]


def differing_purse(tenant: str, purse: Purse, rows: Sequence[Row], *, is_task: bool) -> list[Difference]:
    """Return what of a purse is not what the entries of its run say. What a task has spent is forgotten an hour after it was still."""
    book = book_of(rows)
    opened = {f"{row['node_id']}:{row['attempt']}" for row in rows if row["kind"] in ASIDE}
    closed = {f"{row['node_id']}:{row['attempt']}" for row in rows if row["node_id"] and row["kind"] not in ASIDE}
    named = opened - closed
    expected = {
        "hold": (purse.hold, sum(int(row["to_hold"]) for row in rows)),
        "reserved": (purse.reserved, book["reserved"]),
        "spent": (purse.spent, book["settled"]),
        "open": (purse.open, len(named)),
    }
    if is_task:
        del expected["spent"]
    found = [
        Difference(tenant, f"purse:{purse.rg} {name}", counter, ledger, rg=purse.rg)
        for name, (counter, ledger) in expected.items()
        if counter != ledger
    ]
    if purse.names != named:
        odd = tuple(f"{purse.rg}.{name.replace(':', '.')}" for name in sorted(purse.names ^ named))
        found.append(Difference(tenant, f"open:{purse.rg}", len(purse.names), len(named), "not open in both", odd[:20], rg=purse.rg))
    return found
