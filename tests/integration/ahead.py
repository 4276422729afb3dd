"""A clock that goes on, but ahead: for the scripts of real processes and who asks Redis for its time, which read it in a key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import redis

from tenancy import link as link_module
from tenancy import lua
from tenancy.link import Link

SITE = Path(__file__).resolve().parent / "ahead_site"
"""To be on the PYTHONPATH of processes that have this clock, beside the folder of this module."""
AHEAD_KEY = "test:ahead"

_original = lua.load
_HOOK = f"(function() local t = redis.call('TIME'); return {{t[1] + (redis.call('GET', '{AHEAD_KEY}') or 0), t[2]}} end)()"


def _ahead(name: str) -> lua.Script:
    text = _original(name).text.replace("redis.call('TIME')", _HOOK)
    return lua.Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def install() -> None:
    """Let this process read the moved clock."""
    link_module.load = cache(_ahead)  # type: ignore[assignment]
    Link.now_ms = lambda link: now_ms(link.client)  # type: ignore[method-assign]


@contextmanager
def installed() -> Iterator[None]:
    """Inside the block this process reads the moved clock."""
    before, asked = link_module.load, Link.now_ms
    install()
    try:
        yield
    finally:
        link_module.load = before
        Link.now_ms = asked  # type: ignore[method-assign]


def now_ms(client: redis.Redis) -> int:
    """What the scripts take for the time."""
    seconds, micros = client.time()
    return (int(seconds) + int(str(client.get(AHEAD_KEY) or 0))) * 1000 + int(micros) // 1000


def jump(client: redis.Redis, to_ms: int) -> None:
    """Move the clock forward, to the second; what lives by its heartbeat has the last one at the new time, or a jump would be its death."""
    by_s = (to_ms - now_ms(client)) // 1000
    with client.pipeline(transaction=True) as pipe:
        pipe.incrby(AHEAD_KEY, by_s)
        for name, beat in client.zrange("hg1:incarnations", 0, -1, withscores=True):
            pipe.zadd("hg1:incarnations", {name: int(beat) + by_s * 1000})
        pipe.execute()
