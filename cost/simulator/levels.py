"""Levels of what is committed to a limit: latches that are left lower than they are entered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

NAMES: Final = ("WARNING", "CRITICAL", "EXCEEDED")


class Change(NamedTuple):
    """A level was entered for the `entry`-th time in its period, or left."""

    level: str
    entered: bool
    entry: int


@dataclass(slots=True)
class Latches:
    """One latch for each level above HEALTHY, of one tenant and period; `entries` counts how often each was entered."""

    held: list[bool] = field(default_factory=lambda: [False] * 3)
    entries: list[int] = field(default_factory=lambda: [0] * 3)

    @property
    def level(self) -> str:
        """The highest level that was entered and not left."""
        return next((name for name, held in zip(NAMES[::-1], self.held[::-1], strict=True) if held), "HEALTHY")

    def update(self, committed: int, limit: int, thresholds: tuple[int, int, int], left_lower: int) -> list[Change]:
        """Take in what is committed now, micros of `limit`; a jump enters the levels in between as well."""
        changes = []
        for index, (name, threshold) in enumerate(zip(NAMES, thresholds, strict=True)):
            needed = threshold - left_lower if self.held[index] else threshold
            held = limit == 0 or committed * 100 >= needed * limit
            if held != self.held[index]:
                self.held[index] = held
                self.entries[index] += held
                changes.append(Change(name, held, self.entries[index]))
        return changes
