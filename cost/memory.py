"""The money on dictionaries: what hold, reserve, extend, settle and void mean. The rules are those of `cost/simulator`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tenancy.transport.memory import Rule

from .memory_levels import LevelTerms, MemoryLevels
from .money import check_micros, normalise_category, write_cats
from .period import MS_PER_DAY, month_of
from .simulator.ledger import spread

Key = tuple[str, int]
"""A run and its generation."""


@dataclass(slots=True)
class Account(LevelTerms):
    """A tenant's policy numbers and counters.

    `held` is the unspent part of its runs' holds, `reserved` its open reservations of whatever day, `run_ms` what its runs took lately.
    """

    limit_day: int
    max_runs: int
    status: str = "active"
    version: int = 1
    on_runs_limit: str = "hold"
    on_budget_limit: str = "reject"
    max_waiting_runs: int = 1000
    submissions_per_minute: int | None = None
    pool: str = ""
    admit: str = "floor"
    held: int = 0
    reserved: int = 0
    running: int = 0
    run_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """What a tenant may still promise, and of the period that leaves the least: limit, exposure, whether it is the month."""

    free: int
    limit: int
    exposure: int
    monthly: bool


@dataclass(frozen=True, slots=True)
class Short:
    """Why money is refused: budget or run_budget, the limit and what is promised of it."""

    reason: str
    limit: int
    current: int

    def numbers(self) -> dict[str, str]:
        """As an event has them."""
        return {"reason": self.reason, "limit": str(self.limit), "current": str(self.current)}


@dataclass(slots=True)
class Spent:
    """What a tenant has spent on one day or in one month (UTC), and what of it is reserved and not settled."""

    settled: int = 0
    reserved: int = 0
    waste: int = 0
    categories: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Purse:
    """The money of one run; `open` counts executions that are neither settled nor void, `budget` None is no budget.

    `needed` is the floor of required nodes that wait: nothing else may take that from the hold. `lapsed`: its run was
    paused for so long that what it held is free.
    """

    tenant: str
    hold: int
    budget: int | None
    needed: int = 0
    reserved: int = 0
    spent: int = 0
    open: int = 0
    lapsed: bool = False


@dataclass(slots=True)
class Reservation:
    """The money of one execution by day; `state` is open, settled, void or waste. `cats` is its usage, `actual` the sum of it.

    `over` is what it was charged beyond all that was set aside for it and its run.
    """

    parts: dict[int, int]
    since: int
    state: str = "open"
    actual: int = 0
    cats: str = ""
    over: int = 0

    @property
    def amount(self) -> int:
        """What is set aside, or was when it ended."""
        return sum(self.parts.values())

    @property
    def day(self) -> int:
        """The day of its first part."""
        return next(iter(self.parts))


class MemoryLedger(MemoryLevels):
    """Tenants' accounts, runs' purses and executions' reservations; amounts are whole micros."""

    def __init__(self, *, server: str = "local", now_ms: int = 0) -> None:
        super().__init__(server=server, now_ms=now_ms)
        self.accounts: dict[str, Account] = {}
        self.spent: dict[tuple[str, int], Spent] = {}
        self.months: dict[tuple[str, int], Spent] = {}
        self.purses: dict[Key, Purse] = {}
        self.away: dict[Key, int] = {}
        """runs that are paused and have no place, and since when"""
        self.reservations: dict[Key, dict[tuple[str, int], Reservation]] = {}
        self.settled_by: dict[str, int] = {}
        self.forgotten: dict[str, int] = {}
        """what runs that are forgotten were charged beyond all that was set aside for them, by tenant"""
        self.unenforced: set[str] = set()
        """tenants to whom something was granted that a limit would have refused"""

    @property
    def today(self) -> int:
        """Days since 1970-01-01 UTC."""
        return self.now_ms // MS_PER_DAY

    def account(self, tenant: str, limit_day: int, max_runs: int, status: str = "active", version: int = 1, **terms: Any) -> None:
        """Set a tenant's policy numbers, `terms` by the names of `Account`; its counters stay."""
        known = self.accounts.setdefault(tenant, Account(limit_day, max_runs))
        for name, value in {"limit_day": limit_day, "max_runs": max_runs, "status": status, "version": version, **terms}.items():
            setattr(known, name, value)
        rule = self.rules.setdefault(tenant, Rule())
        rule.status, rule.pool = known.status, known.pool

    def _level_terms(self, tenant: str) -> tuple[int, LevelTerms]:
        return self.accounts[tenant].limit_day, self.accounts[tenant]

    def _committed(self, tenant: str, days: range) -> int:
        books = [self.spent.get((tenant, day), Spent()) for day in days]
        return sum(book.settled + book.reserved for book in books)

    def exposure(self, tenant: str, *, monthly: bool = False) -> int:
        """Settled in the day or month of now, reserved in any, and held: an old reservation may yet return to a hold of today."""
        account = self.accounts[tenant]
        place, books = (month_of(self.today), self.months) if monthly else (self.today, self.spent)
        return books.get((tenant, place), Spent()).settled + account.reserved + account.held

    def room(self, tenant: str) -> Room:
        """What the tenant may still promise; 0 also where a lowered limit is passed, so that it takes nothing from a hold."""
        account = self.accounts[tenant]
        limit, exposure, monthly = account.limit_day, self.exposure(tenant), False
        if account.limit_month is not None and account.limit_month - self.exposure(tenant, monthly=True) < limit - exposure:
            limit, exposure, monthly = account.limit_month, self.exposure(tenant, monthly=True), True
        return Room(max(0, limit - exposure), limit, exposure, monthly)

    def _hold_run(self, key: Key, tenant: str, estimate: int, budget: int | None, floor: int) -> int:
        """Open the purse of a run that is let in, and take a place; returns what is held."""
        account = self.accounts[tenant]
        hold = estimate
        if account.enforcement == "enforce":
            hold = min(hold, self.room(tenant).free, hold if budget is None else budget)
        elif hold > self.room(tenant).free or (budget is not None and hold > budget):
            self.unenforced.add(tenant)
        self.purses[key] = Purse(tenant, 0, budget, floor)
        self._count_held(key, hold)
        account.running += 1
        self.reservations[key] = {}
        return hold

    def _fund(self, key: Key, amount: int, needed: int) -> tuple[int, Short | None]:
        """What the hold gives to an amount, and what refuses the rest: the hold keeps what required nodes need."""
        purse = self.purses[key]
        taken = min(amount, max(0, purse.hold - needed))
        excess, short = amount - taken, max(0, needed - purse.hold)
        if not excess:
            return taken, None
        room, promised = self.room(purse.tenant), purse.spent + purse.reserved + purse.hold
        if excess > room.free - short:
            return taken, Short("budget", room.limit, room.exposure)
        if purse.budget is not None and excess > max(0, purse.budget - promised) - short:
            return taken, Short("run_budget", purse.budget, promised)
        return taken, None

    def _is_enforced(self, short: Short, **execution: Any) -> bool:
        """Whether a refusal stands; a tenant that is observed is told of it instead."""
        tenant = execution["tenant"]
        mode = self.accounts[tenant].enforcement
        if mode == "observe":
            self._append("money.would_refuse", **execution, **short.numbers())
        if mode != "enforce":
            self.unenforced.add(tenant)
        return mode == "enforce"

    def _reserve(self, key: Key, node: str, attempt: int, amount: int, floor: int) -> int | Short:
        """Set money aside for an execution before it starts; returns what the hold gave, or why not.

        floor: what `needed` has of its node, which starts with this.
        """
        purse = self.purses[key]
        taken, short = self._fund(key, amount, purse.needed - floor)
        if short and self._is_enforced(short, **self._execution(key, node, attempt), amount=str(amount)):
            return short
        purse.needed -= floor
        purse.open += 1
        self._count_held(key, -taken)
        self._count_reserved(key, self.today, amount)
        self.reservations[key][node, attempt] = Reservation({self.today: amount}, self.now_ms)
        self._levels_after(key, node, attempt)
        return taken

    def _note_usage(self, key: Key, node: str, attempt: int, cats: str) -> None:
        """Write down what an open execution used, for whoever settles it."""
        reservation = self.reservations[key][node, attempt]
        if reservation.state == "open":
            parts = parse_cats(cats)
            reservation.cats, reservation.actual, reservation.since = write_cats(parts), sum(parts.values()), self.now_ms

    def _extend(self, key: Key, node: str, attempt: int, cats: str) -> str | Short:
        """Raise the reservation of a running execution to what it uses by now: ok, closed, unknown, or why not."""
        reservation = self.reservations.get(key, {}).get((node, attempt))
        if reservation is None:
            return "unknown"
        if reservation.state != "open":
            return "closed"
        purse, used = self.purses[key], parse_cats(cats)
        total = sum(used.values())
        more = total - reservation.amount
        if more > 0:
            taken, short = self._fund(key, more, purse.needed)
            execution = self._execution(key, node, attempt)
            if short and self._is_enforced(short, **execution, amount=str(more)):
                return short
            self._count_held(key, -taken)
            self._count_reserved(key, self.today, more)
            reservation.parts[self.today] = reservation.parts.get(self.today, 0) + more
            self._append("money.extended", **execution, amount=str(more), day=self.today, to_hold=str(-taken))
            self._levels_after(key, node, attempt)
        if total >= reservation.actual:
            reservation.cats, reservation.actual = write_cats(used), total
        reservation.since = self.now_ms
        return "ok"

    def _settle(self, key: Key, node: str, attempt: int, cats: str, by: str, *, unfinished: bool, price_version: str = "") -> str:
        """Charge an execution, once: settled, same, conflict, waste (it was void before) or unknown.

        unfinished: the run has nodes left, so what was reserved and not spent returns to its hold. What it cost beyond its
        reservation is paid by the hold, and only the rest is new exposure.
        """
        reservation = self.reservations.get(key, {}).get((node, attempt))
        if reservation is None:
            return "unknown"
        used = parse_cats(cats)
        if reservation.state in ("settled", "waste"):
            return "same" if reservation.cats == write_cats(used) else "conflict"
        total, purse, waste = sum(used.values()), self.purses[key], reservation.state == "void"
        parts = {list(reservation.parts)[-1]: 0} if waste else dict(reservation.parts)
        aside = sum(parts.values())
        to_hold = -min(total - aside, purse.hold) if total > aside else (aside - total) * unfinished
        if waste:
            self._count_held(key, to_hold)
        else:
            self._close(key, reservation, to_hold)
            self.settled_by[by] = self.settled_by.get(by, 0) + 1
        lines: dict[int, dict[str, int]] = {day: {} for day in parts}
        if used:
            for day, category, micros in _by_day(used, parts):
                lines[day][category] = lines[day].get(category, 0) + micros
        for day, charged in lines.items():
            self._count_charged(key, day, charged, waste=waste)
        reservation.state, reservation.over = "waste" if waste else "settled", max(0, total - aside) + min(0, to_hold)
        reservation.actual, reservation.cats, reservation.since = total, write_cats(used), self.now_ms
        told = [{"day": day, "reserved": str(parts[day]), "cats": _decimals(lines[day])} for day in parts]
        more: dict[str, object] = {"overshoot": str(reservation.over)} if reservation.over else {}
        more |= {"price_version": price_version} if price_version else {}
        self._append(
            "money.settled",
            **self._execution(key, node, attempt),
            amount=str(total),
            cats=_decimals(used),
            reserved=str(aside),
            day=next(iter(parts)),
            by=by,
            kind="waste" if waste else "settle",
            to_hold=str(to_hold),
            **more,
            **({"parts": told} if len(parts) > 1 else {}),
        )
        self._levels_after(key, node, attempt)
        return reservation.state

    def _void(self, key: Key, node: str, attempt: int, by: str, *, unfinished: bool) -> str:
        """Give up an execution's reservation: void, same, conflict (it was charged) or unknown."""
        reservation = self.reservations.get(key, {}).get((node, attempt))
        if reservation is None:
            return "unknown"
        if reservation.state != "open":
            return "same" if reservation.state == "void" else "conflict"
        to_hold = reservation.amount * unfinished
        self._close(key, reservation, to_hold)
        reservation.state, reservation.since = "void", self.now_ms
        told = [{"day": day, "reserved": str(part), "cats": {}} for day, part in reservation.parts.items()]
        self._append(
            "money.voided",
            **self._execution(key, node, attempt),
            reserved=str(reservation.amount),
            day=reservation.day,
            by=by,
            kind="expire" if by == "lost" else "void",
            to_hold=str(to_hold),
            **({"parts": told} if len(told) > 1 else {}),
        )
        self._levels_after(key, node, attempt)
        return "void"

    def _levels_after(self, key: Key, node: str, attempt: int) -> None:
        self._take_levels(self.purses[key].tenant, f"{key[0]}.{key[1]}.{node}.{attempt}")

    def _close(self, key: Key, reservation: Reservation, to_hold: int) -> None:
        self.purses[key].open -= 1
        # The entry stays in the day that made it, also when the next one has begun.
        for day, part in reservation.parts.items():
            self._count_reserved(key, day, -part)
        self._count_held(key, to_hold)

    def _count_held(self, key: Key, change: int) -> None:
        self.purses[key].hold += change
        self.accounts[self.purses[key].tenant].held += change

    def _count_reserved(self, key: Key, day: int, change: int) -> None:
        tenant = self.purses[key].tenant
        self.purses[key].reserved += change
        self.accounts[tenant].reserved += change
        for book in self._books(tenant, day):
            book.reserved += change

    def _count_charged(self, key: Key, day: int, cats: dict[str, int], *, waste: bool) -> None:
        total = sum(cats.values())
        self.purses[key].spent += total
        for book in self._books(self.purses[key].tenant, day):
            book.settled += total
            book.waste += total if waste else 0
            for category, micros in cats.items():
                book.categories[category] = book.categories.get(category, 0) + micros

    def _hold_to(self, key: Key, left: int, *, raised: bool) -> int:
        """The hold falls to what a plan costs, never below what required nodes need; or rises to it, as far as there is room."""
        purse = self.purses[key]
        moved = max(left, purse.needed) - purse.hold
        if moved > 0:
            free = self.room(purse.tenant).free if raised else 0
            if purse.budget is not None:
                free = min(free, max(0, purse.budget - purse.spent - purse.reserved - purse.hold))
            moved = min(moved, free)
        if moved:
            self._count_held(key, moved)
        return moved

    def _raise_budget(self, key: Key, text: str) -> str:
        """Raise a run's own limit to `text`, micros, where it has one that is lower; the one that holds, '' for none."""
        purse = self.purses[key]
        if text and purse.budget is not None:
            purse.budget = max(purse.budget, int(text))
        return "" if purse.budget is None else str(purse.budget)

    def _release_hold(self, key: Key) -> int:
        """The run is over: what it still held is free again, and so is its place. Returns what it held."""
        purse = self.purses[key]
        held, purse.needed = purse.hold, 0
        self._count_held(key, -held)
        self._leave_place(key)
        self.away.pop(key, None)
        return held

    def _leave_place(self, key: Key) -> bool:
        """A run that is paused gives its place up; whether that is new."""
        if key in self.away:
            return False
        self.away[key] = self.now_ms
        self.accounts[self.purses[key].tenant].running -= 1
        return True

    def _take_place(self, key: Key) -> bool:
        """A run that goes on takes its place again; whether that is new."""
        if self.away.pop(key, None) is None:
            return False
        self.accounts[self.purses[key].tenant].running += 1
        return True

    def _books(self, tenant: str, day: int) -> Iterable[Spent]:
        return self.spent.setdefault((tenant, day), Spent()), self.months.setdefault((tenant, month_of(day)), Spent())

    def _execution(self, key: Key, node: str, attempt: int) -> dict[str, object]:
        return {"tenant": self.purses[key].tenant, "run": key[0], "gen": key[1], "node": node, "attempt": attempt}

    def _forget_money(self, key: Key) -> None:
        """Drop purse and executions of a run that is over; what they were charged stays in the books."""
        purse = self.purses.pop(key, None)
        rows = self.reservations.pop(key, {}).values()
        if purse is not None:
            over = sum(row.over for row in rows if row.state in ("settled", "waste"))
            self.forgotten[purse.tenant] = self.forgotten.get(purse.tenant, 0) + over

    def check(self) -> None:
        """Assert that every counter is what holds and reservations say, and that no limit is passed but by overshoot.

        Overshoot is what executions were charged beyond all that was set aside for them and their run.
        """
        super().check()
        days: dict[tuple[str, int], Spent] = {}
        overshoot = dict(self.forgotten)
        for key, purse in self.purses.items():
            rows = self.reservations[key].values()
            opened = [row for row in rows if row.state == "open"]
            charged = [row for row in rows if row.state in ("settled", "waste")]
            over = sum(row.over for row in charged)
            assert purse.hold >= 0, key
            assert purse.needed >= 0, key
            assert purse.open == len(opened), key
            assert purse.reserved == sum(row.amount for row in opened), key
            assert purse.spent == sum(row.actual for row in charged), key
            for row in opened:
                for day, part in row.parts.items():
                    days.setdefault((purse.tenant, day), Spent()).reserved += part
            overshoot[purse.tenant] = overshoot.get(purse.tenant, 0) + over
            if purse.budget is not None and purse.tenant not in self.unenforced:
                assert purse.spent + purse.reserved + purse.hold <= purse.budget + over, f"{key} is over its budget"
        for event in self.events:
            if event["t"] == "money.settled":
                for part in event.get("parts") or [event]:
                    book = days.setdefault((event["tenant"], part["day"]), Spent())
                    cats = {category: int(micros) for category, micros in part["cats"].items()}
                    book.settled += sum(cats.values())
                    book.waste += sum(cats.values()) if event["kind"] == "waste" else 0
                    for category, micros in cats.items():
                        book.categories[category] = book.categories.get(category, 0) + micros
        self._check_books(days)
        for tenant, account in self.accounts.items():
            purses = [purse for purse in self.purses.values() if purse.tenant == tenant]
            assert account.held == sum(purse.hold for purse in purses), tenant
            assert account.reserved == sum(purse.reserved for purse in purses), tenant
            if tenant not in self.unenforced:
                room, over = self.room(tenant), overshoot.get(tenant, 0)
                assert room.exposure <= room.limit + over, f"{tenant} is over its limit"

    def _check_books(self, days: dict[tuple[str, int], Spent]) -> None:
        months: dict[tuple[str, int], Spent] = {}
        for (tenant, day), spent in days.items():
            month = months.setdefault((tenant, month_of(day)), Spent())
            month.settled += spent.settled
            month.reserved += spent.reserved
            month.waste += spent.waste
            for category, micros in spent.categories.items():
                month.categories[category] = month.categories.get(category, 0) + micros
        for told, counted in ((self.spent, days), (self.months, months)):
            for place in told.keys() | counted.keys():
                assert told.get(place, Spent()) == counted.get(place, Spent()), (
                    f"{place}: {told.get(place)}, the events say {counted.get(place)}"
                )
                assert sum(told.get(place, Spent()).categories.values()) == told.get(place, Spent()).settled, place


def parse_cats(cats: str) -> dict[str, int]:
    """Return micros by known category of `llm=30000,compute=12`, without zeros, sorted. Raises ValueError for anything else."""
    found: dict[str, int] = {}
    for item in cats.split(","):
        if item:
            name, _, text = item.partition("=")
            category = normalise_category(name)[0]
            found[category] = found.get(category, 0) + check_micros(int(text), name)
    check_micros(sum(found.values()), "total")
    return {category: found[category] for category in sorted(found) if found[category]}


def _decimals(cats: dict[str, int]) -> dict[str, str]:
    return {category: str(micros) for category, micros in cats.items()}


def _by_day(cats: dict[str, int], parts: dict[int, int]) -> Iterable[tuple[int, str, int]]:
    """As the simulator spreads: categories fill the parts in order, and the last part takes the rest."""
    for day, category, micros in spread(cats, {str(day): part for day, part in parts.items()}):
        yield int(day), category, micros
