"""What is known of a task of a tenant, or of one of its variants, from how its executions went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from .distribution import Distribution
from .drift import Drift, Sums

HALF_LIFE: Final = 100
"""Runs after which what was seen counts half."""

_KEPT: Final = 0.02
"""Of the weight of what was seen before an alarm; what has changed is learned anew, at once, and not from nothing."""

_FADE: Final = 0.5 ** (1 / HALF_LIFE)


class Observation(NamedTuple):
    """One execution that ended: micros by category, how long it took, whether it succeeded, the quality, 0 to 1, that its task told."""

    costs: Mapping[str, int]
    duration_ms: int
    succeeded: bool = True
    quality: float | None = None


@dataclass(slots=True)
class Arm:
    """What is known, by decayed weights. count: executions that it was learned from; alarms: how often it became another one.

    categories: decayed micros by category; tries and successes, and rated and quality: decayed numbers, and the sum of the qualities.
    """

    count: int = 0
    alarms: int = 0
    cost: Distribution = field(default_factory=Distribution)
    duration: Distribution = field(default_factory=Distribution)
    categories: dict[str, float] = field(default_factory=dict)
    tries: float = 0.0
    successes: float = 0.0
    rated: float = 0.0
    quality: float = 0.0
    drift: Drift = field(default_factory=Drift)

    def learn(self, executions: Sequence[Observation]) -> None:
        """Take in the executions of one run; cost and duration of those that succeeded."""
        if not executions:
            return
        self._fade(_FADE)
        good = [each for each in executions if each.succeeded]
        for each in good:
            self.cost.add(sum(each.costs.values()))
            self.duration.add(each.duration_ms)
            for category, micros in each.costs.items():
                self.categories[category] = self.categories.get(category, 0.0) + micros
        rated = [each.quality for each in good if each.quality is not None]
        self.count += len(executions)
        self.tries += len(executions)
        self.successes += len(good)
        self.rated += len(rated)
        self.quality += sum(rated)
        if good:
            self.drift, alarm = self.drift.seen(sum(sum(each.costs.values()) for each in good) / len(good))
            if alarm:
                self.alarms += 1
                self._fade(_KEPT)

    @property
    def success_rate(self) -> float:
        """Share of executions that succeeded; 1 of none."""
        return self.successes / self.tries if self.tries else 1.0

    @property
    def mean_quality(self) -> float | None:
        """Mean quality, 0 to 1; None where none was reported."""
        return self.quality / self.rated if self.rated else None

    def estimate(self) -> dict[str, int]:
        """Return what an execution is expected to cost, in micros by category, each rounded up, without zeroes."""
        weight = self.cost.weight
        return {name: int(-(-micros // weight)) for name, micros in sorted(self.categories.items()) if weight and micros > 0}

    def _fade(self, factor: float) -> None:
        self.cost.fade(factor)
        self.duration.fade(factor)
        self.categories = {name: micros * factor for name, micros in self.categories.items()}
        self.tries *= factor
        self.successes *= factor
        self.rated *= factor
        self.quality *= factor

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "count": self.count,
            "alarms": self.alarms,
            "cost": self.cost.to_document(),
            "duration": self.duration.to_document(),
            "categories": self.categories,
            "seen": [self.tries, self.successes, self.rated, self.quality],
            "drift": [self.drift.count, self.drift.mean, self.drift.variance, *self.drift.sums],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Arm:
        """Read what `to_document` made. Raises KeyError, TypeError or ValueError for anything else."""
        count, mean, variance, above, below = document["drift"]
        tries, successes, rated, quality = map(float, document["seen"])
        return cls(
            int(document["count"]),
            int(document["alarms"]),
            Distribution.from_document(document["cost"]),
            Distribution.from_document(document["duration"]),
            {str(name): float(micros) for name, micros in document["categories"].items()},
            tries,
            successes,
            rated,
            quality,
            Drift(int(count), float(mean), float(variance), Sums(float(above), float(below))),
        )
