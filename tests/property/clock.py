"""A clock that the test moves, for scripts: what they read instead of the server's time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from tenancy import link as link_module
from tenancy import lua

NOW_KEY = "test:now"

_original = lua.load
_HOOK = f"(function() local t = redis.call('GET', '{NOW_KEY}'); return {{math.floor(t / 1000), (t % 1000) * 1000}} end)()"


def _clocked(name: str) -> lua.Script:
    text = _original(name).text.replace("redis.call('TIME')", _HOOK)
    assert _HOOK in text or "'TIME'" not in text, f"{name} reads another clock"
    return lua.Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@contextmanager
def moved_clock() -> Iterator[None]:
    """Inside the block every script of this process takes its time from the key `test:now`, in milliseconds."""
    link_module.load = cache(_clocked)  # type: ignore[assignment]
    try:
        yield
    finally:
        link_module.load = _original
