"""The append-only file of Redis after a restart: written anew, before anybody relies on what was loaded from it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import redis

WAIT_S = 30.0
"""Longest wait for the rewrite; a Redis of gigabytes goes on with it while work begins."""

log = logging.getLogger("headgate.recovery")


def write_anew(client: redis.Redis, alive: Callable[[], None], *, within_s: float = WAIT_S) -> bool:
    """Have Redis write its append-only file from memory, and wait for it at most `within_s` seconds; return whether it is done.

    A file that ends within a command inside a transaction is cut by Redis (7.0, `loadSingleAppendOnlyFile`) behind the last whole
    command, not before MULTI. What runs now does not hold the begun transaction, but the file still does: what is written
    next is appended to it, and the next restart executes all of it, a script's changes that this start took back.

    Where Redis keeps no such file, or does not let us (a managed one), nothing is done. `alive` is called meanwhile, and may raise.
    """
    if not _persistence(client).get("aof_enabled"):
        return False
    try:
        client.bgrewriteaof()
    except redis.ResponseError as error:
        if "in progress" not in str(error):
            log.warning("the append-only file is not written anew: %s", error)
            return False
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        found = _persistence(client)
        if not found.get("aof_rewrite_in_progress") and not found.get("aof_rewrite_scheduled"):
            return bool(found.get("aof_last_bgrewrite_status") == "ok")
        alive()
        time.sleep(0.01)
    log.warning("the append-only file is still being written anew after %g s; work begins meanwhile", within_s)
    return False


def _persistence(client: redis.Redis) -> dict[str, Any]:
    found: dict[str, Any] = client.info("persistence")
    return found
