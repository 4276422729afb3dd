"""Patience: repeating an idempotent call to Redis while it is away or between two epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenancy.errors import Unavailable

T = TypeVar("T")


def patiently(call: Callable[[], T], *, for_s: float, first_s: float = 0.02, longest_s: float = 1.0) -> T:
    """Return what `call` returns, trying again while it raises Unavailable, for at most `for_s` seconds.

    Only for calls that are idempotent: each script of the state is, by run, node and attempt.
    """
    until, pause = time.monotonic() + for_s, first_s
    while True:
        try:
            return call()
        except Unavailable:
            if time.monotonic() + pause > until:
                raise
            time.sleep(pause)
            pause = min(longest_s, pause * 2)
