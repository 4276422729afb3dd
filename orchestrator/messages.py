"""Messages in a rebuild: those of nodes go, because state says anew what is due; ordinary tasks' messages stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import redis

CHUNK = 1_000


class Meta(NamedTuple):
    """What the transport keeps beside a message; `once` names the node that the message is for, or is empty."""

    tenant: str
    priority: str
    pool: str
    cost_ms: str
    deliveries: str
    once: str

    @property
    def queue(self) -> str:
        return f"hg1:queue:{self.pool}:{self.tenant}:{self.priority}"


def keep_ordinary(client: redis.Redis) -> Callable[[Any], None]:
    """Return the commands that leave only ordinary messages, each in line once; what dead incarnations held goes first.

    Read and written apart, so that the commands go into one transaction; nobody else changes queues meanwhile.
    """
    metas = {str(tag): Meta(*str(text).split("|")) for tag, text in client.hscan_iter("hg1:meta", count=CHUNK)}
    ordinary = {tag: meta for tag, meta in metas.items() if not meta.once}
    nodes = [tag for tag, meta in metas.items() if meta.once]
    # Oldest at the right end, where the next message is taken.
    queues = {str(key): [tag for tag in _list(client, key) if tag in ordinary] for key in client.scan_iter("hg1:queue:*", count=CHUNK)}
    held = {str(tag) for key in client.scan_iter("hg1:unacked:*", count=CHUNK) for tag in client.hkeys(key)}
    for tag in sorted(held & ordinary.keys(), key=lambda tag: -int(tag[1:])):
        queues.setdefault(ordinary[tag].queue, []).append(tag)
    waiting = sorted({(ordinary[tags[0]].pool, ordinary[tags[0]].tenant) for tags in queues.values() if tags})
    stale = [str(key) for pattern in ("hg1:unacked:*", "hg1:ready:*") for key in client.scan_iter(pattern, count=CHUNK)]

    def commands(pipe: Any) -> None:
        for first in range(0, len(nodes), CHUNK):
            chunk = nodes[first : first + CHUNK]
            pipe.hdel("hg1:msg", *chunk)
            pipe.hdel("hg1:meta", *chunk)
            pipe.zrem("hg1:delayed", *chunk)
        for key, tags in queues.items():
            pipe.delete(key)
            for first in range(0, len(tags), CHUNK):
                pipe.rpush(key, *tags[first : first + CHUNK])
        for key in stale:
            pipe.delete(key)
        for pool, tenant in waiting:
            pipe.zadd(f"hg1:ready:{pool}", {tenant: 0})

    return commands


def _list(client: redis.Redis, key: str) -> list[str]:
    values: Any = client.lrange(key, 0, -1)
    return list(values)
