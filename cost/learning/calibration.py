"""How much more than its estimate a run may cost: the P90 of runs of a graph, calibrated on those before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

SHARE: Final = 0.9
"""Of runs that cost no more than their P90."""

LEAST: Final = 30
"""Runs below which the P90 is twice the estimate."""

WINDOW: Final = 200
"""Runs that it goes back to."""

_STEP: Final = 0.02
"""How far a miss moves the share that is aimed at; a hit moves it back by a ninth of that."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Runs of a graph: by how much each cost more than its estimate, oldest first, and the share that is aimed at.

    Split conformal prediction on the ratio of cost and estimate, where the share follows how often it was missed, so that it is right in
    the long run whatever the costs do (Gibbs and Candes, Adaptive Conformal Inference, NeurIPS 2021).
    covered, missed: runs whose cost was, and was not, within the P90 that was said of them.
    """

    ratios: tuple[float, ...] = ()
    aim: float = SHARE
    covered: int = 0
    missed: int = 0

    @property
    def proven(self) -> bool:
        """Whether enough runs are known."""
        return len(self.ratios) >= LEAST

    @property
    def factor(self) -> float:
        """What an estimate is multiplied by to get the P90."""
        if not self.proven:
            return 2.0
        rank = math.ceil((len(self.ratios) + 1) * self.aim)
        ratios = sorted(self.ratios)
        return ratios[min(max(rank, 1), len(ratios)) - 1]

    @property
    def coverage(self) -> float | None:
        """Share of runs that cost no more than was said; None where none was told by the runs before it."""
        told = self.covered + self.missed
        return self.covered / told if told else None

    def p90(self, estimate: int) -> int:
        """Return what nine of ten such runs cost at most, in the unit of the estimate; rounded up."""
        return math.ceil(estimate * self.factor)

    def seen(self, estimate: int, cost: int) -> Calibration:
        """Return it with a run that ended: what it was estimated at before it began, and what it cost. An estimate of 0 says nothing."""
        if estimate <= 0:
            return self
        ratios = (*self.ratios, cost / estimate)[-WINDOW:]
        if not self.proven:
            return Calibration(ratios, self.aim, self.covered, self.missed)
        miss = cost > self.p90(estimate)
        aim = self.aim + _STEP * (miss - (1 - SHARE))
        return Calibration(ratios, min(max(aim, 0.5), 0.999), self.covered + (not miss), self.missed + miss)
