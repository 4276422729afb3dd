"""The day or month (UTC) that a report is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from cost.money import shown
from cost.period import MS_PER_DAY, day_of, first_of_month, month_ends_ms, name_of
from orchestrator.store.ledger import number_of
from tenancy.errors import Refused

DELAY_MS = 5 * 60_000
"""How long after its end a report about a period is made: what ran over midnight has mostly settled by then."""


@dataclass(frozen=True, order=True)
class Period:
    """A day (`2026-11-22`) or a month (`2026-11`): its first and last day, counted since 1970-01-01 UTC."""

    first: int
    last: int
    name: str

    @property
    def kind(self) -> str:
        """Return `day` or `month`."""
        return "month" if len(self.name) == len("2026-11") else "day"

    @property
    def days(self) -> range:
        """Its days."""
        return range(self.first, self.last + 1)

    @property
    def start_ms(self) -> int:
        """Its first moment."""
        return self.first * MS_PER_DAY

    @property
    def end_ms(self) -> int:
        """The first moment after it."""
        return (self.last + 1) * MS_PER_DAY

    @classmethod
    def of_day(cls, day: int) -> Period:
        """Return a day by its number."""
        return cls(day, day, name_of(day))

    @classmethod
    def of_month(cls, day: int) -> Period:
        """Return the month that a day is in."""
        return cls(first_of_month(day), month_ends_ms(day) // MS_PER_DAY - 1, name_of(day)[:7])

    @classmethod
    def parse(cls, text: str) -> Period:
        """Return the period that `2026-11-22` or `2026-11` names. Raises Refused."""
        try:
            if len(text) == len("2026-11"):
                return cls.of_month(_day(f"{text}-01"))
            if len(text) == len("2026-11-22"):
                return cls.of_day(_day(text))
        except (ValueError, OverflowError):
            pass
        raise Refused(f"{shown(text)} is no day such as 2026-11-22 and no month such as 2026-11")


def due(now_ms: int, since: int, kind: str, made: frozenset[str], most: int) -> list[Period]:
    """Return the periods of a kind that have been over for five minutes and have no report, oldest first.

    since: the first day that there is anything about. made: names of those that have one. most: how many periods are looked back at.
    """
    found: list[Period] = []
    day = day_of(now_ms)
    for _ in range(most):
        period = Period.of_day(day - 1) if kind == "day" else Period.of_month(first_of_month(day) - 1)
        if period.last < since or period.last < 0:
            break
        if period.end_ms + DELAY_MS <= now_ms and period.name not in made:
            found.append(period)
        day = period.first
    return found[::-1]


def _day(text: str) -> int:
    day = number_of(date.fromisoformat(text))
    if day < 0:
        raise ValueError(text)
    return day
