"""Lengths of queues, as Redis has them: those of tenants in every pool, and Celery's ordinary ones."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tenancy import keys
from tenancy.link import Link
from tenancy.priorities import Priority
from tenancy.queues import POOL_PREFIX, parse_queue, queue_name

SHOWN_MAX = 500
"""Queues of tenants on one page."""


@dataclass(frozen=True, slots=True)
class Ordinary:
    """How Kombu keeps ordinary queues: one list for each step of priority, the first under the queue's own name."""

    names: tuple[str, ...]
    steps: tuple[int, ...]
    separator: str

    def lists(self, name: str) -> tuple[str, ...]:
        """Return the keys of the lists of the queue `name`."""
        return tuple(f"{name}{self.separator}{step}" if step else name for step in self.steps)


@dataclass(frozen=True, slots=True)
class Length:
    """How many messages wait in the queue `name`; `pool` is None for an ordinary queue."""

    name: str
    messages: int
    pool: str | None = None

    def matches(self, search: str) -> bool:
        """Return whether the name of the queue or of its pool contains `search` (in lower case)."""
        return search in self.name.lower() or search in (self.pool or "").lower()


@dataclass(frozen=True, slots=True)
class Lengths:
    """What a page shows: pools and ordinary queues, then the longest queues of tenants.

    `found` is how many queues of tenants match the search, `messages` how many wait in all of those, shown or not.
    """

    whole: tuple[Length, ...]
    tenants: tuple[Length, ...]
    found: int
    messages: int

    @property
    def left_out(self) -> int:
        """How many queues of tenants match and are not among `tenants`."""
        return self.found - len(self.tenants)


def ordinary_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of `names` that are neither a pool's nor a tenant's, in order."""
    return tuple(sorted({name for name in names if not name.startswith(POOL_PREFIX) and parse_queue(name) is None}))


def read_lengths(link: Link, ordinary: Ordinary, search: str = "", shown_max: int = SHOWN_MAX) -> Lengths:
    """Return the lengths of the queues that match `search`, in two round trips. Blocks: not for an event loop.

    Raises redis.ConnectionError, redis.TimeoutError or Unavailable when Redis cannot be reached.
    """
    pools = sorted(map(str, link.read("SMEMBERS", keys.POOLS)))
    pipe = link.client.pipeline(transaction=False)
    for pool in pools:
        pipe.hgetall(keys.depth(pool))
    lists = [(name, key) for name in ordinary.names for key in ordinary.lists(name)]
    for _, key in lists:
        pipe.llen(key)
    replies = pipe.execute()
    depths = dict(zip(pools, replies, strict=False))
    listed = dict.fromkeys(ordinary.names, 0)
    for (name, _), messages in zip(lists, replies[len(pools) :], strict=True):
        listed[name] += int(messages)
    return lengths(depths, listed, search, shown_max)


def lengths(depths: Mapping[str, Mapping[str, str]], ordinary: Mapping[str, int], search: str, shown_max: int) -> Lengths:
    """Return what a page shows of `depths`, by pool `tenant|priority` -> messages, and of ordinary queues' lengths."""
    search = search.strip().lower()
    whole = [Length(POOL_PREFIX + pool, sum(map(int, depth.values())), pool) for pool, depth in depths.items()]
    whole += [Length(name, messages) for name, messages in ordinary.items()]
    # Plain tuples until it is known which few are shown: there may be tens of thousands, and the loop's thread waits meanwhile.
    found = [(-int(messages), field, pool) for pool, depth in depths.items() for field, messages in _matching(pool, depth, search)]
    longest = tuple(_of_tenant(field, -negative, pool) for negative, field, pool in heapq.nsmallest(shown_max, found))
    return Lengths(tuple(each for each in whole if each.matches(search)), longest, len(found), -sum(each[0] for each in found))


def _matching(pool: str, depth: Mapping[str, str], search: str) -> Iterable[tuple[str, str]]:
    if search in pool.lower():
        return depth.items()
    return (item for item in depth.items() if search in _name(item[0]))


def _name(field: str) -> str:
    tenant, _, priority = field.rpartition("|")
    return queue_name(tenant, Priority(int(priority)))


def _of_tenant(field: str, messages: int, pool: str) -> Length:
    return Length(_name(field), messages, pool)
