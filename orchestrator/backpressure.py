"""When a pool is so loaded that new runs wait: the three numbers, as the scripts take them."""

from __future__ import annotations

from typing import NamedTuple


class Backpressure(NamedTuple):
    """Capacity of a pool = live slots x `backlog_per_slot`; load = messages in line or held, and roots about to be.

    A pool is parked when its load is at least `park_at_percent` of its capacity, or nobody serves it, and open again when the load is
    below `release_below_percent`. Parked, it takes no new runs; nodes of runs that were admitted always start.
    """

    backlog_per_slot: int = 20
    park_at_percent: int = 80
    release_below_percent: int = 70


DEFAULT = Backpressure()
