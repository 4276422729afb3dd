"""What a schedule promises: its times, what becomes of missed ones, and of those that come while a run is still live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from cost.money import check_micros
from tenancy.priorities import Priority

from .timetable import Timetable

CATCH_UP = ("none", "one", "all")
OVERLAP = ("skip", "queue", "allow")
JITTER_MAX_S = 86_400


@dataclass(frozen=True)
class Terms:
    """The terms of a schedule.

    cron, every_s, timezone: as `Timetable` takes them. catch_up: of the times that were missed none runs, or one (the last), or all.
    overlap: a time that comes while a run of the schedule is live is left out (skip), waits for the end of that run (queue), or runs
    beside it (allow). jitter_s: 0 to 86,400; each time starts so many seconds later at most, the same for each time whoever computes it.
    budget: the most that each run may cost, whole micros, or None. priority: 1, 3, 5, 7 or 9, or None for the tenant's default.
    Raises ValueError, with one sentence, for what does not fit.
    """

    cron: str | None = None
    every_s: int | None = None
    timezone: str = "UTC"
    catch_up: str = "one"
    overlap: str = "skip"
    jitter_s: int = 0
    budget: int | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        self.timetable  # noqa: B018 - what it refuses is refused here
        _one_of("catch_up", self.catch_up, CATCH_UP)
        _one_of("overlap", self.overlap, OVERLAP)
        if type(self.jitter_s) is not int or not 0 <= self.jitter_s <= JITTER_MAX_S:
            raise ValueError(f"the jitter is {self.jitter_s!r}; give 0 to {JITTER_MAX_S} whole seconds")
        if self.catch_up == "all" and self.overlap == "skip":
            raise ValueError("catch_up all runs every time and overlap skip leaves some out; use overlap queue or allow with it")
        if self.every_s is not None and self.jitter_s >= self.every_s:
            raise ValueError(f"the jitter of {self.jitter_s} s is not less than the interval of {self.every_s} s; give less")
        if self.budget is not None:
            check_micros(self.budget)
        if self.priority is not None and self.priority not in tuple(Priority):
            raise ValueError(f"the priority is {self.priority!r}; give CRITICAL, HIGH, NORMAL, LOW or BATCH")

    @cached_property
    def timetable(self) -> Timetable:
        """When its times are."""
        return Timetable(self.cron, self.every_s, self.timezone)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Terms:
        """Return the terms with these fields, others at their defaults. Raises ValueError, also for a name that is none."""
        known = [field.name for field in fields(cls)]
        for name in said:
            if name not in known:
                raise ValueError(f"a schedule has no {name!r}; its terms are {', '.join(known)}")
        return cls(**said)

    def evolve(self, **changes: Any) -> Terms:
        """Return the terms with some changed; a cron expression takes the place of an interval, and the other way round."""
        if changes.get("cron") is not None:
            changes.setdefault("every_s", None)
        elif changes.get("every_s") is not None:
            changes.setdefault("cron", None)
        return Terms.of({**asdict(self), **changes})

    def said(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def _one_of(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ValueError(f"{name} is {value!r}; use {', '.join(words[:-1])} or {words[-1]}")
