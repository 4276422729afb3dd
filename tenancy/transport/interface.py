"""The queue as its users see it: one interface, served by Redis (`queue.py`) and by dictionaries (`memory.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

SLEEP_MS: Final = 1_000
"""Longest sleep of an idle worker, so that a lost doorbell token costs a second at most."""

TAGS_MAX: Final = 200
"""No call moves more messages than this."""


class DeadIncarnation(Exception):
    """The incarnation was declared dead: take a new one before popping again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message handed to an incarnation.

    number: counts its deliveries from 1. timeout_s: what its time limit, in seconds, was raised to since it was written; None: it was not.
    """

    tag: str
    payload: str
    number: int
    timeout_s: int | None = None


class FairQueue(Protocol):
    """One method for each script of the transport, in terms of docs/protocol.md.

    A run is `{run}.{generation}`; a scope is `platform`, `tenant:{id}` or `run:{run}.{generation}`. Each call raises Fenced when the epoch
    is another server's.
    """

    def enroll(self, inc: str, ttl_ms: int, info: Mapping[str, Any]) -> int:
        """Make an incarnation live; asked again, only its heartbeat changes.

        info: name, host, pid, pools, slots, tasks, limits {task: [limit]}, expected_ms {task: ms}. What it says of a task that it
        serves replaces what was said before.
        """

    def beat(self, inc: str) -> int:
        """Refresh the heartbeat; 0 means that it is dead."""

    def slots(self, inc: str, slots: int) -> int:
        """A worker's pool grew or shrank to so many slots; 0 means that it is dead."""

    def retire(self, inc: str) -> int:
        """Leave on purpose; what is held goes first in line. 0 means that it is dead."""

    def reclaim(self, ttl_ms: int, limit: int = TAGS_MAX) -> tuple[int, int]:
        """Give back at most `limit` messages of incarnations that were silent for `ttl_ms`: (moved, 1 when there are more)."""

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
        """Store a message; return its tag, or '' if `once` names one that still exists and `replace` is 0.

        pool: '' is the tenant's own, else `default`. cost_ms: 0 is what the task took lately, else what it declares, else a second.
        limits: {key, at_once?, rate? (a minute), per? "tenant"}; none are those of the task, as they are when it is popped.
        """

    def pop(self, inc: str, pool: str, sleep_ms: int = SLEEP_MS) -> Delivery | None:
        """Take the next message of a pool, or None. Raises DeadIncarnation."""

    def pop_or_wait(self, inc: str, pool: str, sleep_ms: int = SLEEP_MS, acks: Sequence[tuple[str, str, int]] = ()) -> Delivery | int:
        """Take the next message of a pool, or return how many ms to wait for its doorbell at most. Raises DeadIncarnation.

        acks: (inc, tag, delivery) of messages to settle before.
        """

    def ack(self, inc: str, tag: str, delivery: int) -> int:
        """Settle a held message; 0 when the incarnation does not hold this delivery of it."""

    def requeue(self, inc: str, tag: str, delivery: int, delay_ms: int = 0) -> int:
        """Hand a held message back, first in line or delayed; 0 as `ack`."""

    def remove(self, kind: str, ids: Sequence[str]) -> int:
        """Remove messages by `once` ids or `tag`s (at most 200); held ones are not delivered again. Returns how many existed."""

    def remove_scope(self, scope: str) -> int:
        """Remove every message there is of a tenant or a run; returns the number of the last tag removed."""

    def janitor(self, cursor: str, count: int = TAGS_MAX) -> tuple[str, int]:
        """Forget removed messages, a piece at a time: (next cursor, forgotten); cursor '0' begins, and follows a whole round."""

    def purge(
        self, cursor: str, count: int = TAGS_MAX, *, pool: str = "", tenant: str = "", priority: int | None = None
    ) -> tuple[str, int]:
        """Forget messages that nobody holds, a piece at a time: (next cursor, forgotten), as `janitor`; dead letters stay.

        pool, tenant, priority: only those; '' or None is any.
        """

    def pause(self, scope: str, by: str, reason: str) -> int:
        """Pop nothing of the scope from here on; 0 when it was paused already."""

    def resume(self, scope: str, by: str, reason: str) -> int:
        """End a pause; 1 when more is to be returned: call again."""

    def refresh(self, tenant: str) -> int:
        """A tenant's weight, cap or status changed: from here on nothing of it is popped, or the room that it may have now is used."""

    def reprioritise(self, priority: int, kind: str, ids: Sequence[str]) -> int:
        """Change the priority of waiting messages, by `once` ids or `tag`s (at most 200); returns how many were changed."""

    def letters(self, act: str, tags: Sequence[str]) -> int:
        """`requeue` or `discard` dead letters; returns how many there were."""

    def cap(self, run: str, max_parallel: int | None) -> int:
        """Set how many messages of a run may be held at once; None: as many as there are slots."""
