"""The nights: what a platform is built for, each shown beside stock Celery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .night_bill import CLAIMANTS
from .night_bill import show as show_bill
from .night_flood import FLOOD
from .night_flood import show as show_flood
from .night_join import MEMBERS
from .night_join import show as show_join
from .scene import Scene


@dataclass(frozen=True)
class Night:
    """A bad night; `show` returns whether we kept what we promise of it, won or lost beside the other."""

    name: str
    title: str
    show: Callable[[Scene], bool]


NIGHTS = (
    Night("join", f"a worker dies while it holds members of a {MEMBERS}-way join", show_join),
    Night("flood", f"one customer queues {FLOOD:,} nodes, and another one", show_flood),
    Night("bill", f"{CLAIMANTS} claimants want the rest of one budget at once", show_bill),
)
"""In the order in which they are shown."""
