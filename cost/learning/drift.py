"""Whether a quantity has begun to be another one: two cumulative sums of how far it was off (Page, Biometrika 1954)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

_SLACK: Final = 0.4
"""Standard deviations that count as nothing, each time."""

_ALARM: Final = 7.0
"""Standard deviations, summed, at which it is another quantity."""

_MOST: Final = 3.0
"""One value counts as that many standard deviations at most: a heavy tail is no drift."""

_PROVEN: Final = 20
"""Values that the mean and the deviation are taken from at least."""

_MEMORY: Final = 200
"""Values that they go back to."""


class Sums(NamedTuple):
    """How far it was above and below of late, in standard deviations."""

    above: float
    below: float


_NONE: Final = Sums(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Drift:
    """A quantity above 0 as it comes, by its logarithm. count: values since the last alarm, up to 200."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    sums: Sums = _NONE

    def seen(self, value: float) -> tuple[Drift, bool]:
        """Return it with one more value, and whether that raised the alarm; what follows is then a new quantity."""
        log = math.log(max(value, 1.0))
        off = log - self.mean
        sums = self.sums
        if self.count >= _PROVEN:
            deviation = max(math.sqrt(self.variance), 0.02)
            far = max(-_MOST, min(_MOST, off / deviation))
            sums = Sums(max(0.0, sums.above + far - _SLACK), max(0.0, sums.below - far - _SLACK))
            if max(sums) > _ALARM:
                return Drift(), True
        count = min(self.count + 1, _MEMORY)
        mean = self.mean + off / count
        return Drift(count, mean, self.variance + (off * (log - mean) - self.variance) / count, sums), False
