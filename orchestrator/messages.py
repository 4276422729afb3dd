"""Messages in a rebuild: those of nodes go, because state says anew what is due; ordinary tasks' messages stay."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import redis

from tenancy import keys

CHUNK = 1_000

Meta = dict[str, Any]
"""What the transport keeps beside a message; the page docs/protocol.md names its fields."""


def keep_ordinary(client: redis.Redis) -> Callable[[Any], None]:
    """Return the commands that leave only ordinary messages, each in line once; what was held or parked goes first.

    Delayed messages and dead letters stay what they are. Read and written apart, so that the commands go into one transaction; nobody
    else changes queues meanwhile.
    """
    metas: dict[str, Meta] = {str(tag): json.loads(text) for tag, text in client.hscan_iter(keys.META, count=CHUNK)}
    gone = [tag for tag, meta in metas.items() if meta["o"] or "gone" in meta]
    waiting = {tag: meta for tag, meta in metas.items() if not meta["o"] and "gone" not in meta and meta["w"] not in ("d", "x")}
    lines = _lines(client, waiting)
    stale = [
        str(key)
        for key in client.scan_iter(keys.PREFIX + "*", count=CHUNK)
        if str(key).split(":")[1] in ("queue", "depth", "ready", "unacked")
    ]

    def commands(pipe: Any) -> None:
        for first in range(0, len(gone), CHUNK):
            chunk = gone[first : first + CHUNK]
            for key in (keys.MESSAGES, keys.META, keys.LETTERS):
                pipe.hdel(key, *chunk)
            pipe.zrem(keys.DELAYED, *chunk)
        for key in stale:
            pipe.delete(key)
        for (pool, tenant, priority), tags in lines.items():
            for tag in tags:
                entry = waiting[tag] | {"w": "q", "k": waiting[tag]["k"] + 1}
                entry.pop("u", None)
                pipe.hset(keys.META, tag, json.dumps(entry))
                pipe.rpush(keys.queue(pool, tenant, priority), f"{tag}:{entry['k']}")
            pipe.hset(keys.depth(pool), f"{tenant}|{priority}", len(tags))
            pipe.zadd(keys.ready(pool), {tenant: 0})

    return commands


def count_anew(client: redis.Redis) -> Callable[[Any], None]:
    """Return the commands that make the transport's counts what the messages that are left say; blocked tenants are found by the pops."""
    metas: list[Meta] = [json.loads(text) for _, text in client.hscan_iter(keys.META, count=CHUNK)]
    load: Counter[str] = Counter()
    work: dict[str, Counter[str]] = defaultdict(Counter)
    for meta in metas:
        if meta["w"] == "q":
            load.update({meta["q"]: 1, f"{meta['q']}|ms": meta["c"]})
            work[keys.work(meta["q"])][meta["t"]] += meta["c"]
    delayed = Counter(meta["t"] for meta in metas if meta["w"] == "d")

    def commands(pipe: Any) -> None:
        for key, counts in {keys.LOAD: load, keys.DELAYED_BY: delayed, **work}.items():
            pipe.delete(key)
            if counts:
                pipe.hset(key, mapping=counts)

    return commands


def _lines(client: redis.Redis, waiting: dict[str, Meta]) -> dict[tuple[str, str, int], list[str]]:
    """Return the lines by pool, tenant and priority; the next message at the right end, as in Redis."""
    lines: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    seen: set[str] = set()
    for key in client.scan_iter(keys.QUEUES + "*", count=CHUNK):
        for entry in _list(client, str(key)):
            tag, k = entry.rsplit(":", 1)
            meta = waiting.get(tag)
            if meta is not None and meta["w"] == "q" and meta["k"] == int(k):
                lines[meta["q"], meta["t"], meta["p"]].append(tag)
                seen.add(tag)
    for tag in sorted(waiting.keys() - seen, key=lambda tag: -int(tag[1:])):
        meta = waiting[tag]
        lines[meta["q"], meta["t"], meta["p"]].append(tag)
    return lines


def _list(client: redis.Redis, key: str) -> list[str]:
    values: Any = client.lrange(key, 0, -1)
    return list(values)
