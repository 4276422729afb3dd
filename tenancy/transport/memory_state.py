"""What the transport on dictionaries keeps: messages, pools, rules of tenants, workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

TAGS_MAX: Final = 200
"""No script moves more tags than this in one call."""

PATIENCE: Final = 9
"""A level that was passed over so often goes next."""

DEATHS_MAX: Final = 3

EXPECTED_MS: Final = 1_000
"""What a message is expected to take while nothing is known of its task."""

RECHECK_MS: Final = 1_000
"""How long a message may stay parked, beside room that it does not know of."""

RECHECK_MAX_MS: Final = 61_000
"""No rate limit needs longer for a token: a rate is at least one a minute."""

PRIORITIES: Final = (1, 3, 5, 7, 9)
LOWEST: Final = 9

Reply = list[Any]

Limit = Mapping[str, Any]
"""A limit by key: key, at_once?, rate? (a minute), per? "tenant"."""


@dataclass(slots=True)
class Message:
    """A message that is not acknowledged yet; the keys `msg` and `meta` hold it."""

    payload: str
    tenant: str
    priority: int
    pool: str
    cost_ms: int
    once: str
    run: str = ""
    task: str = ""
    limits: tuple[dict[str, Any], ...] = ()
    """those that it was put with; none: those of its task"""
    taken: tuple[dict[str, Any], ...] = ()
    """those that it takes a place of while it is held"""
    deliveries: int = 0
    place: str = ""
    """q in line, h held, d delayed, x dead letter, or the name of the list where it is parked"""
    let_out_of: str = ""
    """the list that it was parked in before, and could go from"""
    deaths: list[str] = field(default_factory=list)

    @property
    def is_parked(self) -> bool:
        return ":" in self.place


@dataclass(slots=True)
class Pool:
    """Who waits in a pool and who sleeps there, and its virtual time."""

    ready: dict[str, int] = field(default_factory=dict)
    ages: dict[tuple[str, int], int] = field(default_factory=dict)
    """starts of a tenant since the last of this level, while the level waits"""
    clock: int = 0
    finished: dict[str, int] = field(default_factory=dict)
    sleepers: dict[str, int] = field(default_factory=dict)
    bell: int = 0


@dataclass(slots=True)
class Rule:
    """What a tenant's policy says to the queue.

    weight: its share of worker time. max_running_nodes: how many of its messages may be held at once. status: of a suspended tenant
    nothing is popped. pool: where its messages go that name none; '' is the pool `default`.
    """

    weight: int = 1
    max_running_nodes: int | None = None
    status: str = "active"
    pool: str = ""


@dataclass(slots=True)
class Worker:
    """A live incarnation: its last heartbeat, what it said of itself, and the slots that it has now."""

    beat_ms: int
    info: dict[str, Any]
    slots: int


def number_of(tag: str) -> int:
    """The number of a tag: tags are given out in order."""
    return int(tag[1:])
