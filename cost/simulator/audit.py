"""The auditor: every counter is the sum of the entries that it stands for, and every execution was charged once."""

from __future__ import annotations

from collections import Counter

from .entries import WASTE, Entry
from .ledger import Ledger
from .periods import month_of


def differences(ledger: Ledger) -> list[str]:
    """Return one sentence for each counter that is not what the entries add up to; none where all is well."""
    told: Counter[tuple[str, ...]] = Counter()
    for account in ledger.accounts.values():
        told["held", account.id] += account.held
        told["reserved", account.id] += account.reserved
        told["running", account.id] += account.running
        for period, book in account.books.items():
            told["settled", account.id, period] += book.settled
            told["reserved", account.id, period] += book.reserved
            told["waste", account.id, period] += book.waste
            for category, amount in book.categories.items():
                told["category", account.id, period, category] += amount
            if sum(book.categories.values()) != book.settled:
                told["categories are not the total", account.id, period] += 1
    for key, purse in ledger.purses.items():
        run = f"{key.run}.{key.generation}"
        told["hold", run] += purse.hold
        told["reserved of run", run] += purse.reserved
        told["spent", run] += purse.spent
        told["open", run] += purse.open
        for period, amount in purse.spent_in.items():
            told["spent in", run, period] += amount
    counted: Counter[tuple[str, ...]] = Counter()
    for entry in ledger.entries:
        _count(entry, counted)
    for execution, reservation in ledger.reservations.items():
        if reservation.state == "open":
            counted["open", f"{execution.run}.{execution.generation}"] += 1
    for purse in ledger.purses.values():
        counted["running", purse.tenant] += not purse.ended
    wrong = [
        f"{' '.join(place)}: the counter says {told[place]}, the entries {counted[place]}"
        for place in sorted(told.keys() | counted.keys())
        if told[place] != counted[place]
    ]
    negative = [f"{' '.join(place)} is {amount}" for place, amount in sorted(told.items()) if amount < 0]
    return wrong + negative + _charged_twice(ledger)


def _count(entry: Entry, counted: Counter[tuple[str, ...]]) -> None:
    tenant, run = entry.tenant, f"{entry.run}.{entry.generation}"
    counted["held", tenant] += entry.to_hold
    counted["hold", run] += entry.to_hold
    reserved = (entry.amount if entry.kind in ("reserve", "extend") else 0) - entry.released
    counted["reserved", tenant] += reserved
    counted["reserved of run", run] += reserved
    charged = entry.amount if entry.kind in ("settle", "adjust") else 0
    counted["spent", run] += charged if entry.run else 0
    for period in (entry.day, month_of(entry.day)):
        counted["reserved", tenant, period] += reserved
        counted["settled", tenant, period] += charged
        if entry.kind in ("settle", "adjust"):
            counted["category", tenant, period, entry.category] += charged
            counted["spent in", run, period] += charged if entry.run else 0
        counted["waste", tenant, period] += charged if entry.cause == WASTE else 0


def _charged_twice(ledger: Ledger) -> list[str]:
    lines: dict[tuple[str, int, str, int, str, str], int] = Counter(
        (e.run, e.generation, e.node, e.attempt, e.day, e.category) for e in ledger.entries if e.kind == "settle"
    )
    totals: Counter[tuple[str, int, str, int]] = Counter()
    for entry in ledger.entries:
        if entry.kind == "settle":
            totals[entry.run, entry.generation, entry.node, entry.attempt] += entry.amount
    return [f"{place} is charged {count} times" for place, count in lines.items() if count > 1] + [
        f"{execution} is charged {totals[execution]}, and told {sum(reservation.cats.values())}"
        for execution, reservation in ledger.reservations.items()
        if totals[execution] != sum(reservation.cats.values())
    ]
