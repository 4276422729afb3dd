"""The nights: what a platform is built for, each shown beside stock Celery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import night_join
from .scene import Scene


@dataclass(frozen=True)
class Night:
    """A bad night; `show` returns whether we kept what we promise of it, won or lost beside the other."""

    name: str
    title: str
    show: Callable[[Scene], bool]


NIGHTS = (Night("join", f"a worker dies while it holds members of a {night_join.MEMBERS}-way join", night_join.show),)
"""In the order in which they are shown."""
