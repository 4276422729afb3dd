"""Many things in pieces that one script call may carry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from orchestrator.state import ROWS_MAX

T = TypeVar("T")


def pieces(items: Iterable[T], size: int = ROWS_MAX) -> Iterator[list[T]]:
    """Yield items in lists of at most `size`."""
    every = list(items)
    for first in range(0, len(every), size):
        yield every[first : first + size]
