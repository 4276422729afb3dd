"""The common recipe for a budget, as many services have it: look, do the work, add it up. The night of the bill is shown beside it."""

from __future__ import annotations

from collections.abc import Callable

import redis


def claim(connection: redis.Redis, cost: int, limit: int, work: Callable[[], object]) -> bool:
    """Do the work and charge it if the budget has room for it; False when it has not. Two that look at once both find room."""
    spent = int(str(connection.get("spent") or 0))
    if spent + cost > limit:
        return False
    work()
    connection.incrby("spent", cost)
    return True
