"""The money on dictionaries: what hold, reserve, settle and void mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tenancy.transport.memory import MemoryQueue, Rule

Key = tuple[str, int]
"""A run and its generation."""

_DAY_MS: Final = 86_400_000


@dataclass(slots=True)
class Account:
    """A tenant's policy numbers and counters; `held` is the unspent part of its runs' holds, `run_ms` what its runs took lately."""

    limit_day: int
    max_runs: int
    status: str = "active"
    version: int = 1
    on_runs_limit: str = "hold"
    on_budget_limit: str = "reject"
    max_waiting_runs: int = 1000
    submissions_per_minute: int | None = None
    pool: str = ""
    held: int = 0
    running: int = 0
    run_ms: int | None = None


@dataclass(slots=True)
class Spent:
    """What a tenant has spent on one day (UTC), and what of that day is reserved and not settled."""

    settled: int = 0
    reserved: int = 0
    waste: int = 0
    categories: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Purse:
    """The money of one run; `open` counts executions that are neither settled nor void, `budget` None is no budget."""

    tenant: str
    hold: int
    budget: int | None
    reserved: int = 0
    spent: int = 0
    open: int = 0


@dataclass(slots=True)
class Reservation:
    """The money of one execution; `state` is open, settled, void or waste. `cats` is its usage, `actual` the sum of it."""

    amount: int
    day: int
    since: int
    state: str = "open"
    actual: int = 0
    cats: str = ""


class MemoryLedger(MemoryQueue):
    """Tenants' accounts, runs' purses and executions' reservations; amounts are whole micros."""

    def __init__(self, *, server: str = "local", now_ms: int = 0) -> None:
        super().__init__(server=server, now_ms=now_ms)
        self.accounts: dict[str, Account] = {}
        self.spent: dict[tuple[str, int], Spent] = {}
        self.purses: dict[Key, Purse] = {}
        self.reservations: dict[Key, dict[tuple[str, int], Reservation]] = {}

    @property
    def today(self) -> int:
        """Days since 1970-01-01 UTC."""
        return self.now_ms // _DAY_MS

    def account(self, tenant: str, limit_day: int, max_runs: int, status: str = "active", version: int = 1, **terms: Any) -> None:
        """Set a tenant's policy numbers, `terms` by the names of `Account`; its counters stay."""
        known = self.accounts.setdefault(tenant, Account(limit_day, max_runs))
        for name, value in {"limit_day": limit_day, "max_runs": max_runs, "status": status, "version": version, **terms}.items():
            setattr(known, name, value)
        rule = self.rules.setdefault(tenant, Rule())
        rule.status, rule.pool = known.status, known.pool

    def exposure(self, tenant: str) -> int:
        """Settled and reserved of today, and what is held."""
        today = self.spent.get((tenant, self.today), Spent())
        return today.settled + today.reserved + self.accounts[tenant].held

    def _hold_run(self, key: Key, tenant: str, estimate: int, budget: int | None) -> int:
        """Open the purse of a run that is let in, and take a place; returns what is held."""
        account = self.accounts[tenant]
        hold = min(estimate, account.limit_day - self.exposure(tenant), estimate if budget is None else budget)
        account.held += hold
        account.running += 1
        self.purses[key] = Purse(tenant, hold, budget)
        self.reservations[key] = {}
        return hold

    def _reserve(self, key: Key, node: str, attempt: int, amount: int) -> bool:
        """Move money from the run's hold to an execution; only what exceeds the hold is new exposure and must fit."""
        purse = self.purses[key]
        account = self.accounts[purse.tenant]
        taken = min(purse.hold, amount)
        excess = amount - taken
        if excess > 0:
            if self.exposure(purse.tenant) + excess > account.limit_day:
                return False
            if purse.budget is not None and purse.spent + purse.reserved + purse.hold + excess > purse.budget:
                return False
        purse.hold -= taken
        account.held -= taken
        purse.reserved += amount
        purse.open += 1
        self._day(purse.tenant, self.today).reserved += amount
        self.reservations[key][node, attempt] = Reservation(amount, self.today, self.now_ms)
        return True

    def _note_usage(self, key: Key, node: str, attempt: int, cats: str) -> None:
        """Write down what an open execution used, for whoever settles it."""
        reservation = self.reservations[key][node, attempt]
        if reservation.state == "open":
            reservation.cats, reservation.actual, reservation.since = cats, sum(parse_cats(cats).values()), self.now_ms

    def _settle(self, key: Key, node: str, attempt: int, cats: str, by: str, *, unfinished: bool) -> str:
        """Charge an execution, once: settled, same, conflict, waste (it was void before) or unknown.

        unfinished: the run has nodes left, so what was reserved and not spent returns to its hold.
        """
        reservation = self.reservations.get(key, {}).get((node, attempt))
        if reservation is None:
            return "unknown"
        if reservation.state in ("settled", "waste"):
            return "same" if reservation.cats == cats else "conflict"
        parts = parse_cats(cats)
        actual = sum(parts.values())
        purse = self.purses[key]
        day = self._day(purse.tenant, reservation.day)
        kind = "settle" if reservation.state == "open" else "waste"
        if kind == "settle":
            self._close(key, reservation, actual, unfinished=unfinished)
        else:
            day.waste += actual
        day.settled += actual
        purse.spent += actual
        for category, micros in parts.items():
            day.categories[category] = day.categories.get(category, 0) + micros
        reservation.state = "settled" if kind == "settle" else "waste"
        reservation.actual, reservation.cats, reservation.since = actual, cats, self.now_ms
        self._append(
            "money.settled",
            **self._execution(key, node, attempt),
            amount=str(actual),
            cats={category: str(micros) for category, micros in parts.items()},
            reserved=str(reservation.amount),
            day=reservation.day,
            by=by,
            kind=kind,
        )
        return reservation.state

    def _void(self, key: Key, node: str, attempt: int, by: str, *, unfinished: bool) -> str:
        """Give up an execution's reservation: void, same, conflict (it was charged) or unknown."""
        reservation = self.reservations.get(key, {}).get((node, attempt))
        if reservation is None:
            return "unknown"
        if reservation.state != "open":
            return "same" if reservation.state == "void" else "conflict"
        self._close(key, reservation, 0, unfinished=unfinished)
        reservation.state, reservation.since = "void", self.now_ms
        self._append("money.voided", **self._execution(key, node, attempt), reserved=str(reservation.amount), day=reservation.day, by=by)
        return "void"

    def _close(self, key: Key, reservation: Reservation, actual: int, *, unfinished: bool) -> None:
        purse = self.purses[key]
        purse.reserved -= reservation.amount
        purse.open -= 1
        # The entry stays in the day that made it, also when the next one has begun.
        self._day(purse.tenant, reservation.day).reserved -= reservation.amount
        if unfinished:
            unspent = max(0, reservation.amount - actual)
            purse.hold += unspent
            self.accounts[purse.tenant].held += unspent

    def _release_hold(self, key: Key) -> None:
        """The run is over: what it still held is free again, and so is its place."""
        purse = self.purses[key]
        account = self.accounts[purse.tenant]
        account.held -= purse.hold
        account.running -= 1
        purse.hold = 0

    def _day(self, tenant: str, day: int) -> Spent:
        return self.spent.setdefault((tenant, day), Spent())

    def _execution(self, key: Key, node: str, attempt: int) -> dict[str, object]:
        return {"tenant": self.purses[key].tenant, "run": key[0], "gen": key[1], "node": node, "attempt": attempt}

    def check(self) -> None:
        """Assert that every counter is what holds and reservations say, and that no limit is passed but by overshoot.

        Overshoot is what executions spent above their reservation, and all that the void ones turned out to have spent.
        """
        super().check()
        days: dict[tuple[str, int], Spent] = {}
        overshoot: dict[str, int] = {}
        for key, purse in self.purses.items():
            opened = [row for row in self.reservations[key].values() if row.state == "open"]
            charged = [row for row in self.reservations[key].values() if row.state in ("settled", "waste")]
            assert purse.hold >= 0, key
            assert purse.open == len(opened), key
            assert purse.reserved == sum(row.amount for row in opened), key
            assert purse.spent == sum(row.actual for row in charged), key
            for row in opened:
                days.setdefault((purse.tenant, row.day), Spent()).reserved += row.amount
            over = 0
            for row in charged:
                assert row.actual == sum(parse_cats(row.cats).values()), key
                day = days.setdefault((purse.tenant, row.day), Spent())
                day.settled += row.actual
                day.waste += row.actual if row.state == "waste" else 0
                over += row.actual if row.state == "waste" else max(0, row.actual - row.amount)
            overshoot[purse.tenant] = overshoot.get(purse.tenant, 0) + over
            if purse.budget is not None:
                assert purse.spent + purse.reserved + purse.hold <= purse.budget + over, f"{key} is over its budget"
        for place in days.keys() | self.spent.keys():
            told, counted = self.spent.get(place, Spent()), days.get(place, Spent())
            assert (told.settled, told.reserved, told.waste) == (counted.settled, counted.reserved, counted.waste), place
            assert sum(told.categories.values()) == told.settled, place
        for tenant, account in self.accounts.items():
            assert account.held == sum(purse.hold for purse in self.purses.values() if purse.tenant == tenant), tenant
            assert self.exposure(tenant) <= account.limit_day + overshoot.get(tenant, 0), f"{tenant} is over its limit"


def parse_cats(cats: str) -> dict[str, int]:
    """Return micros by category of `llm=30000,compute=12`."""
    pairs = (item.split("=") for item in cats.split(",") if item)
    return {category: int(micros) for category, micros in pairs}
