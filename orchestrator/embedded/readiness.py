"""When a child of the stack does its work: what to look for, in Redis and in its log."""

from __future__ import annotations

import redis

from orchestrator.embedded.child import Child
from tenancy import keys

"""Keys of docs/protocol.md."""


def kernel_ready(child: Child, client: redis.Redis) -> bool:
    """Return whether `child`, the recorder or a worker, can be worked with.

    The recorder can once the epoch is bound to this very start of Redis (before that every script refuses as fenced), a worker
    once its incarnation is live. While Redis is away nothing is ready.
    """
    try:
        return epoch_is_open(client) if child.name == "recorder" else is_enrolled(client, child.pid)
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def said_ready(child: Child, client: redis.Redis) -> bool:
    """Return whether `child` is the recorder, or a worker that printed Celery's "ready."."""
    del client  # a log tells it
    return child.name == "recorder" or " ready." in child.said()


def epoch_is_open(client: redis.Redis) -> bool:
    """Return whether the epoch is bound to the server as it runs now."""
    return _text(client.hget(keys.EPOCH, "server")) == str(client.info("server")["run_id"])


def is_enrolled(client: redis.Redis, pid: int | None) -> bool:
    """Return whether a live incarnation is that of the process `pid` of this machine; ids are host.pid.random."""
    live = client.zrange(keys.INCARNATIONS, 0, -1)
    return pid is not None and any(_text(each).split(".")[-2:-1] == [str(pid)] for each in live)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
