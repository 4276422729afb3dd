"""The fair queue on Redis: put, pop, ack, and the incarnations that hold messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenancy.link import Link

SLEEP_MS = 1_000
"""Longest sleep of an idle worker, so that a lost doorbell token costs a second at most."""


class DeadIncarnation(Exception):
    """The incarnation was declared dead: take a new one before popping again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message handed to an incarnation; `number` counts its deliveries from 1."""

    tag: str
    payload: str
    number: int


class Queue:
    """One method for each script of the transport; arguments as docs/protocol.md has them, without the server id."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def enroll(self, inc: str, ttl_ms: int, info: Mapping[str, Any]) -> int:
        """Make an incarnation live; `info` says name, host, pid, pools and tasks."""
        return int(self.link.call("tenancy/transport/enroll", inc, ttl_ms, json.dumps(info)))

    def beat(self, inc: str) -> int:
        """Refresh the heartbeat; 0 means that it is dead."""
        return int(self.link.call("tenancy/transport/beat", inc))

    def put(
        self, payload: str, tenant: str, priority: int, pool: str, cost_ms: int, once: str = "", replace: int = 0, delay_ms: int = 0
    ) -> str:
        """Store a message; returns its tag, or '' when `once` names one that still exists."""
        return str(self.link.call("tenancy/transport/put", payload, tenant, priority, pool, cost_ms, once, replace, delay_ms))

    def pop(self, inc: str, pool: str, sleep_ms: int = SLEEP_MS) -> Delivery | None:
        """Take the next message of a pool, or None. Raises DeadIncarnation."""
        reply = self.link.call("tenancy/transport/pop", inc, pool, sleep_ms)
        if not reply:
            return None
        if reply[0] == "DEAD":
            raise DeadIncarnation(inc)
        return Delivery(reply[0], reply[1], int(reply[2]))

    def ack(self, inc: str, tag: str, delivery: int) -> int:
        """Settle a held message; 0 when the incarnation does not hold this delivery of it."""
        return int(self.link.call("tenancy/transport/ack", inc, tag, delivery))

    def requeue(self, inc: str, tag: str, delivery: int, delay_ms: int = 0) -> int:
        """Hand a held message back, first in line or delayed; 0 when the incarnation does not hold this delivery of it."""
        return int(self.link.call("tenancy/transport/requeue", inc, tag, delivery, delay_ms))

    def reclaim(self, ttl_ms: int, limit: int = 200) -> tuple[int, int]:
        """Give back what silent incarnations hold; returns (moved, more)."""
        moved, more = self.link.call("tenancy/transport/reclaim", ttl_ms, limit)
        return int(moved), int(more)

    def retire(self, inc: str) -> int:
        """Leave on purpose."""
        return int(self.link.call("tenancy/transport/retire", inc))
