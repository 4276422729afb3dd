"""The counters that the ledger keeps: of a tenant, of a period, of a run and of an execution."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from .entries import RunKey
from .levels import Latches
from .periods import month_of
from .policy import Policy


@dataclass(slots=True)
class Book:
    """A tenant's day or month: what is settled (waste is part of it) and what its open reservations are."""

    settled: int = 0
    reserved: int = 0
    waste: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    latches: Latches = field(default_factory=Latches)

    @property
    def committed(self) -> int:
        return self.settled + self.reserved


@dataclass(frozen=True, slots=True)
class Request:
    """A run that asks to be admitted: its floor, its estimate and its own limit (None: none), in micros."""

    key: RunKey
    floor: int
    estimate: int
    budget: int | None = None
    quality: Literal["best", "full"] = "best"


@dataclass(slots=True)
class Account:
    """A tenant. `held` is the unspent part of all its holds, `reserved` all its open reservations, of whatever period."""

    id: str
    policy: Policy
    day: str
    held: int = 0
    reserved: int = 0
    running: int = 0
    line: list[Request] = field(default_factory=list)
    books: dict[str, Book] = field(default_factory=dict)

    @property
    def periods(self) -> tuple[str, ...]:
        """The periods of now that have a limit."""
        return tuple(period for period in (self.day, month_of(self.day)) if self.policy.limit(period) is not None)

    def limit(self, period: str) -> int:
        limit = self.policy.limit(period)
        assert limit is not None
        return limit

    def book(self, period: str) -> Book:
        return self.books.setdefault(period, Book())

    def exposure(self, period: str) -> int:
        """Settled in the period, reserved in any, and held: an old reservation may yet return to a hold of today."""
        return self.book(period).settled + self.reserved + self.held

    @property
    def tightest(self) -> str:
        """The period that leaves the least room."""
        return min(self.periods, key=lambda period: self.limit(period) - self.exposure(period))

    @property
    def room(self) -> int:
        """What may still be promised, micros; 0 also where a lowered limit is passed, so that it takes nothing from a hold."""
        return max(0, self.limit(self.tightest) - self.exposure(self.tightest))

    @property
    def exceeded(self) -> str:
        """The period whose limit is used up by what is committed, or ''."""
        return next((period for period in self.periods if self.book(period).committed >= self.limit(period)), "")

    @property
    def level(self) -> str:
        """The highest level of the day and the month."""
        names = [self.book(period).latches.level for period in self.periods]
        return max(names, key=("HEALTHY", "WARNING", "CRITICAL", "EXCEEDED").index)


@dataclass(slots=True)
class Purse:
    """A run's money. `needed` is the floor of what is required and has not started: nothing else may take that from the hold."""

    tenant: str
    hold: int
    budget: int | None
    needed: int
    reserved: int = 0
    spent: int = 0
    open: int = 0
    ended: bool = False
    spent_in: Counter[str] = field(default_factory=Counter)

    @property
    def room(self) -> int | None:
        """What its own limit leaves for new promises; None without one."""
        return None if self.budget is None else max(0, self.budget - self.spent - self.reserved - self.hold)


@dataclass(slots=True)
class Reservation:
    """An execution's money by the day that made it; `over` is what it cost beyond all that was set aside for it or its run."""

    parts: dict[str, int]
    first: int
    state: Literal["open", "settled", "void", "waste"] = "open"
    cats: dict[str, int] = field(default_factory=dict)
    over: int = 0
    overshoot: int = 0

    @property
    def amount(self) -> int:
        return sum(self.parts.values())
