"""What a quantity was like so far: a sketch of its values that can fade and be merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore

ACCURACY: Final = 0.02
"""Relative error of a quantile."""

_LEAST: Final = 1e-6
"""A weight below this, of all, is dropped as the sketch fades."""

_SCALE_MAX: Final = 1e9


class Distribution:
    """Values from 0 on, each with a weight; quantiles within 2 % of a value that was there (DDSketch, Masson et al., VLDB 2019).

    Bounded: values from 1 to 2^53 lie in fewer than 1,000 bins, and real costs in some ten.
    """

    def __init__(self) -> None:
        self._mapping = LogarithmicMapping(ACCURACY)
        self._bins = DenseStore()
        self._zeros = 0.0
        self._total = 0.0
        # Instead of making all that is there lighter, fading makes what comes heavier: all numbers here are this often too large.
        self._scale = 1.0

    @property
    def weight(self) -> float:
        """Of all values together."""
        return (float(self._bins.count) + self._zeros) / self._scale

    @property
    def mean(self) -> float:
        """Mean by weight; 0 of nothing."""
        weight = self.weight
        return self._total / self._scale / weight if weight else 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Add a value. Raises ValueError for one below 0, and for a weight that is not above 0."""
        if value < 0 or weight <= 0:
            raise ValueError(f"a value of {value} with the weight {weight} cannot be added: values are 0 or more, weights above 0")
        if value > self._mapping.min_possible:
            self._bins.add(self._mapping.key(value), weight * self._scale)
        else:
            self._zeros += weight * self._scale
        self._total += value * weight * self._scale

    def merge(self, other: Distribution) -> None:
        """Add all that another one has."""
        by = self._scale / other._scale
        for key, weight in other._weights().items():
            self._bins.add(key, weight * by)
        self._zeros += other._zeros * by
        self._total += other._total * by

    def fade(self, factor: float) -> None:
        """Multiply all weights by `factor`, above 0 to 1; bins that hardly count any more are dropped now and then."""
        self._scale /= factor
        if self._scale > _SCALE_MAX:
            least = _LEAST * float(self._bins.count)
            kept = {key: weight / self._scale for key, weight in self._weights().items() if weight > least}
            self._take(kept, self._zeros / self._scale, self._total / self._scale)

    def quantile(self, share: float) -> float:
        """Return the value below which that share of the weight lies, 0 to 1; 0 of nothing."""
        weight = self.weight
        if not weight:
            return 0.0
        # The sketch takes the first weight of 1 for the least value; what has faded below 1 in all counts as one value.
        by = max(1.0, 1 / weight) / self._scale
        bins = DenseStore()
        for key, each in self._weights().items():
            bins.add(key, each * by)
        found = BaseDDSketch(self._mapping, bins, DenseStore(), self._zeros * by).get_quantile_value(share)
        return float(found or 0.0)

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON has it; numbers to nine digits."""
        bins = {str(key): _rounded(weight / self._scale) for key, weight in self._weights().items()}
        return {"bins": bins, "zeros": _rounded(self._zeros / self._scale), "total": _rounded(self._total / self._scale)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_document` made. Raises KeyError, TypeError or ValueError for anything else."""
        made = cls()
        made._take({int(key): float(weight) for key, weight in document["bins"].items()}, document["zeros"], document["total"])
        return made

    def _weights(self) -> dict[int, float]:
        return {at + self._bins.offset: weight for at, weight in enumerate(self._bins.bins) if weight > 0}

    def _take(self, bins: Mapping[int, float], zeros: float, total: float) -> None:
        self._bins, self._zeros, self._total, self._scale = DenseStore(), zeros, total, 1.0
        for key in sorted(bins):
            self._bins.add(key, bins[key])


def _rounded(number: float) -> float:
    return float(f"{number:.9g}")
