"""The fair queue on Redis: put, pop, ack, and the incarnations that hold messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tenancy.link import Link
from tenancy.transport.interface import SLEEP_MS, DeadIncarnation, Delivery

__all__ = ["SLEEP_MS", "DeadIncarnation", "Delivery", "Queue"]


class Queue:
    """The interface `FairQueue` on Redis: one method for each script of the transport, without the server id."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def enroll(self, inc: str, ttl_ms: int, info: Mapping[str, Any]) -> int:
        """Make an incarnation live; `info` says name, host, pid, pools, slots and tasks, and of these limits and expected_ms."""
        return int(self.link.call("tenancy/transport/enroll", inc, ttl_ms, json.dumps(info)))

    def beat(self, inc: str) -> int:
        """Refresh the heartbeat; 0 means that it is dead."""
        return int(self.link.call("tenancy/transport/beat", inc))

    def slots(self, inc: str, slots: int) -> int:
        """A worker's pool grew or shrank; 0 means that it is dead."""
        return int(self.link.call("tenancy/transport/slots", inc, slots))

    def put(
        self,
        payload: str,
        tenant: str,
        priority: int,
        pool: str,
        cost_ms: int,
        once: str = "",
        replace: int = 0,
        delay_ms: int = 0,
        run: str = "",
        task: str = "",
        limits: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Store a message; returns its tag, or '' when `once` names one that still exists and `replace` is 0."""
        about = (tenant, priority, pool, cost_ms, once, replace, delay_ms, run, task)
        return str(self.link.call("tenancy/transport/put", payload, *about, json.dumps([dict(limit) for limit in limits])))

    def pop(self, inc: str, pool: str, sleep_ms: int = SLEEP_MS) -> Delivery | None:
        """Take the next message of a pool, or None. Raises DeadIncarnation."""
        found = self.pop_or_wait(inc, pool, sleep_ms)
        return found if isinstance(found, Delivery) else None

    def pop_or_wait(self, inc: str, pool: str, sleep_ms: int = SLEEP_MS, acks: Sequence[tuple[str, str, int]] = ()) -> Delivery | int:
        """Take the next message of a pool, or return how many ms to wait for its doorbell at most. Raises DeadIncarnation.

        acks: (inc, tag, delivery) of messages to settle before, in the same script.
        """
        pop = "tenancy/transport/pop", inc, pool, sleep_ms
        reply = self.link.call(*pop, *(part for each in acks for part in each))
        while reply == ["MORE"]:  # 200 messages were passed over in one call, which is all that one call may cost
            reply = self.link.call(*pop)
        if reply[0] == "DEAD":
            raise DeadIncarnation(inc)
        if reply[0] == "SLEEP":
            return int(reply[1])
        return Delivery(reply[0], reply[1], *map(int, reply[2:]))

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

    def remove(self, kind: str, ids: Sequence[str]) -> int:
        """Remove messages by `once` ids or `tag`s (at most 200); returns how many existed."""
        return int(self.link.call("tenancy/transport/remove", kind, *ids))

    def remove_scope(self, scope: str) -> int:
        """Remove every message there is of `tenant:{id}` or `run:{run}.{generation}`; returns the number of the last tag removed."""
        return int(self.link.call("tenancy/transport/remove_scope", scope))

    def janitor(self, cursor: str, count: int = 200) -> tuple[str, int]:
        """Forget removed messages, a piece at a time; returns (next cursor, forgotten), cursor '0' after a whole round."""
        following, forgotten = self.link.call("tenancy/transport/janitor", cursor, count)
        return str(following), int(forgotten)

    def purge(self, cursor: str, count: int = 200, *, pool: str = "", tenant: str = "", priority: int | None = None) -> tuple[str, int]:
        """Forget messages that nobody holds, a piece at a time; returns (next cursor, forgotten), as `janitor`. Dead letters stay."""
        level = "" if priority is None else priority
        following, forgotten = self.link.call("tenancy/transport/purge", cursor, count, pool, tenant, level)
        return str(following), int(forgotten)

    def pause(self, scope: str, by: str, reason: str) -> int:
        """Pop nothing of `platform`, `tenant:{id}` or `run:{run}.{generation}` from here on; 0 when it was paused already."""
        return int(self.link.call("tenancy/transport/pause", scope, by, reason))

    def resume(self, scope: str, by: str, reason: str) -> int:
        """End a pause; 1 when more is to be returned: call again."""
        return int(self.link.call("tenancy/transport/resume", scope, by, reason))

    def refresh(self, tenant: str) -> int:
        """A tenant's weight, cap or status changed: pop nothing of it from here on, or use the room that it may have now."""
        return int(self.link.call("tenancy/transport/refresh", tenant))

    def reprioritise(self, priority: int, kind: str, ids: Sequence[str]) -> int:
        """Change the priority of waiting messages, by `once` ids or `tag`s (at most 200); returns how many were changed."""
        return int(self.link.call("tenancy/transport/reprioritise", priority, kind, *ids))

    def letters(self, act: str, tags: Sequence[str]) -> int:
        """`requeue` or `discard` dead letters; returns how many there were."""
        return int(self.link.call("tenancy/transport/letters", act, *tags))

    def cap(self, run: str, max_parallel: int | None) -> int:
        """Set how many messages of a run may be held at once; None: as many as there are slots."""
        return int(self.link.call("tenancy/transport/cap", run, "" if max_parallel is None else max_parallel))

    def retire(self, inc: str) -> int:
        """Leave on purpose."""
        return int(self.link.call("tenancy/transport/retire", inc))
