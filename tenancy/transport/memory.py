"""The transport on dictionaries: what the scripts put, pop, ack, reclaim and their neighbours mean.

`docs/protocol.md` names the calls; here they are written to be read. Nothing is shared between processes: the clock is
set by the caller, and a change that would be one script is one method.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any, Final, Self

TAGS_MAX: Final = 200
"""No script moves more tags than this in one call."""

_PRIORITIES: Final = (1, 3, 5, 7, 9)

Reply = list[Any]


class Fenced(Exception):
    """The server that the caller opened its connection to is not the one that the epoch is bound to."""


@dataclass(slots=True)
class Message:
    """A message that is not acknowledged yet; the keys `msg` and `meta` hold it."""

    payload: str
    tenant: str
    priority: int
    pool: str
    cost_ms: int
    once: str
    deliveries: int = 0


@dataclass(slots=True)
class Pool:
    """Who waits in a pool and who sleeps there, and its virtual time."""

    ready: dict[str, int] = field(default_factory=dict)
    clock: int = 0
    finished: dict[str, int] = field(default_factory=dict)
    sleepers: dict[str, int] = field(default_factory=dict)
    bell: int = 0


@dataclass(slots=True)
class Worker:
    """A live incarnation: its last heartbeat and what it said of itself."""

    beat_ms: int
    info: str


class MemoryQueue:
    """Fence, event log, incarnations and fair queues.

    server: the run id that this caller read when it connected; a call is refused when it is not the epoch's.
    now_ms: the clock, milliseconds since 1970-01-01 UTC; the caller moves it.
    events: the log; each event has its `id`, (epoch, sequence).
    """

    def __init__(self, *, server: str = "local", now_ms: int = 0) -> None:
        self.server = server
        self.now_ms = now_ms
        self.epoch = 1
        self.epoch_server = server
        self.sequence = 0
        self.events: list[dict[str, Any]] = []
        self.tags = 0
        self.messages: dict[str, Message] = {}
        self.once: dict[str, str] = {}
        self.queues: dict[tuple[str, int], list[str]] = {}
        self.delayed: dict[str, int] = {}
        self.unacked: dict[str, dict[str, int]] = {}
        self.pools: dict[str, Pool] = {}
        self.workers: dict[str, Worker] = {}
        self.dying: list[str] = []

    # The epoch

    def open_epoch(self, server: str, rebuilt: bool = False) -> int:
        """Bind the next epoch to `server`; calls of everyone who is connected to another are refused from here on."""
        self.epoch, self.epoch_server, self.sequence = self.epoch + 1, server, 0
        self._append("epoch.opened", epoch=self.epoch, server=server, rebuilt=int(rebuilt))
        return self.epoch

    def snapshot(self) -> Self:
        """Return a copy that later changes do not reach."""
        return copy.deepcopy(self)

    def restore(self, snapshot: Self) -> None:
        """Become what `snapshot` was when it was taken: a rollback of the whole server."""
        self.__dict__.update(copy.deepcopy(snapshot.__dict__))

    def _fence(self) -> None:
        if self.server != self.epoch_server:
            raise Fenced("FENCED")

    def _append(self, type_: str, **fields: object) -> None:
        self.sequence += 1
        self.events.append({"id": (self.epoch, self.sequence), "t": type_, "at": self.now_ms, **fields})

    # Incarnations

    def enroll(self, inc: str, ttl_ms: int, info: str) -> int:
        """Make the incarnation live; asked again, only its heartbeat changes."""
        self._fence()
        if inc in self.workers:
            self.workers[inc].beat_ms = self.now_ms
            return 1
        self.workers[inc] = Worker(self.now_ms, info)
        self._append("worker.enrolled", inc=inc, info=info)
        return 1

    def beat(self, inc: str) -> int:
        """Return 0 to a dead or unknown incarnation, which then must take a new one."""
        self._fence()
        if inc not in self.workers:
            return 0
        self.workers[inc].beat_ms = self.now_ms
        return 1

    @property
    def serves(self) -> dict[str, int]:
        """How many live incarnations serve each task."""
        counts: dict[str, int] = {}
        for worker in self.workers.values():
            for task in json.loads(worker.info).get("tasks", []):
                counts[task] = counts.get(task, 0) + 1
        return counts

    def reclaim(self, ttl_ms: int, limit: int) -> Reply:
        """Declare dead who has not been heard of for `ttl_ms`, and give back at most `limit` tags of the dead."""
        self._fence()
        for inc in sorted(self.workers, key=lambda inc: (self.workers[inc].beat_ms, inc)):
            if self.workers[inc].beat_ms <= self.now_ms - ttl_ms:
                self._bury(inc, "worker.dead")
        moved = self._give_back(limit)
        return [moved, int(bool(self.dying))]

    def retire(self, inc: str) -> int:
        """End an incarnation that leaves by itself; what it still holds goes back at once."""
        self._fence()
        if inc in self.workers:
            self._bury(inc, "worker.retired")
            self._give_back(TAGS_MAX)
        return 1

    def _bury(self, inc: str, event: str) -> None:
        worker = self.workers.pop(inc)
        for pool in self.pools.values():
            pool.sleepers.pop(inc, None)
        self._append(event, inc=inc, info=worker.info)
        if self.unacked.get(inc):
            self.dying.append(inc)

    def _give_back(self, limit: int) -> int:
        moved = 0
        while self.dying and moved < limit:
            inc = self.dying[0]
            held = self.unacked.get(inc, {})
            # Last popped goes back first, so that the order in line is what it was before.
            for tag in list(reversed(held))[: limit - moved]:
                self._release(inc, tag)
                if tag in self.messages:
                    self._line_up(tag, first=True)
                moved += 1
            if not self.unacked.get(inc):
                self.dying.pop(0)
        return moved

    def _holds(self, inc: str, tag: str, delivery: int | None = None) -> bool:
        """Whether a live incarnation holds the tag (in that delivery)."""
        held = self.unacked.get(inc, {}).get(tag)
        return inc in self.workers and held is not None and delivery in (None, held)

    def _release(self, inc: str, tag: str) -> None:
        del self.unacked[inc][tag]
        if not self.unacked[inc]:
            del self.unacked[inc]

    # Messages

    def put(self, payload: str, tenant: str, priority: int, pool: str, cost_ms: int, once: str, replace: int, delay_ms: int) -> str:
        """Store a message and return its tag, or '' if `once` names one that still exists and is not to be replaced."""
        self._fence()
        if once:
            former = self.once.get(once)
            if former in self.messages:
                if not replace:
                    return ""
                self._forget(former)
        self.tags += 1
        tag = f"m{self.tags}"
        self.messages[tag] = Message(payload, tenant, priority, pool, cost_ms, once)
        if once:
            self.once[once] = tag
        if delay_ms > 0:
            self.delayed[tag] = self.now_ms + delay_ms
        else:
            self._line_up(tag)
        return tag

    def pop(self, inc: str, pool: str, sleep_ms: int) -> Reply:
        """Give the incarnation the next message: least virtual start time, then priority, then age."""
        self._fence()
        if inc not in self.workers:
            return ["DEAD"]
        self._wake_delayed()
        line = self._pool(pool)
        while line.ready:
            tenant = min(line.ready, key=lambda name: (line.ready[name], name))
            tag = self._next_of(tenant)
            if tag is None:
                del line.ready[tenant]
                continue
            return self._deliver(inc, pool, tenant, tag)
        line.sleepers[inc] = self.now_ms + sleep_ms
        return []

    def ack(self, inc: str, tag: str) -> int:
        """Remove a message for good."""
        self._fence()
        if not self._holds(inc, tag):
            return 0
        self._release(inc, tag)
        self._forget(tag)
        return 1

    def requeue(self, inc: str, tag: str, delay_ms: int) -> int:
        """Give a message back: first in line, or in `delay_ms`."""
        self._fence()
        if not self._holds(inc, tag):
            return 0
        self._release(inc, tag)
        if tag in self.messages:
            if delay_ms > 0:
                self.delayed[tag] = self.now_ms + delay_ms
            else:
                self._line_up(tag, first=True)
        return 1

    def _pool(self, name: str) -> Pool:
        return self.pools.setdefault(name, Pool())

    def _line_up(self, tag: str, *, first: bool = False) -> None:
        message = self.messages[tag]
        queue = self.queues.setdefault((message.tenant, message.priority), [])
        queue.insert(len(queue) if first else 0, tag)
        pool = self._pool(message.pool)
        # A tenant that comes back starts at the pool's clock: idle time earns nothing.
        pool.ready.setdefault(message.tenant, max(pool.clock, pool.finished.get(message.tenant, 0)))
        self._ring(pool)

    def _next_of(self, tenant: str) -> str | None:
        """Take the tenant's next tag; a tag whose message is gone is passed over."""
        for priority in _PRIORITIES:
            queue = self.queues.get((tenant, priority), [])
            while queue:
                tag = queue.pop()
                if not queue:
                    del self.queues[tenant, priority]
                if tag in self.messages:
                    return tag
        return None

    def _deliver(self, inc: str, pool_name: str, tenant: str, tag: str) -> Reply:
        pool, message = self._pool(pool_name), self.messages[tag]
        start = pool.ready[tenant]
        pool.clock = start
        pool.finished[tenant] = start + message.cost_ms
        if any((tenant, priority) in self.queues for priority in _PRIORITIES):
            pool.ready[tenant] = start + message.cost_ms
        else:
            del pool.ready[tenant]
        message.deliveries += 1
        self.unacked.setdefault(inc, {})[tag] = message.deliveries
        pool.sleepers.pop(inc, None)
        if pool.ready:
            self._ring(pool)
        return [tag, message.payload, message.deliveries]

    def _wake_delayed(self) -> None:
        due = sorted((when, tag) for tag, when in self.delayed.items() if when <= self.now_ms)
        for _, tag in due[:TAGS_MAX]:
            del self.delayed[tag]
            self._line_up(tag)

    def _ring(self, pool: Pool) -> None:
        if pool.bell < len(pool.sleepers):
            pool.bell += 1

    def _forget(self, tag: str | None) -> None:
        """Drop a message wherever it waits; its tag in a queue is passed over when its turn comes."""
        if tag is None or tag not in self.messages:
            return
        message = self.messages.pop(tag)
        self.delayed.pop(tag, None)
        if message.once and self.once.get(message.once) == tag:
            del self.once[message.once]

    # Promises

    def check(self) -> None:
        """Assert that no message is lost or twice in line, and that `once` points to messages that exist."""
        places: dict[str, int] = {}
        for tags in (*self.queues.values(), self.delayed, *self.unacked.values()):
            for tag in tags:
                places[tag] = places.get(tag, 0) + 1
        for tag, message in self.messages.items():
            assert places.get(tag) == 1, f"{tag} is in {places.get(tag, 0)} places"
            assert not message.once or self.once.get(message.once) == tag, f"{tag} is not the one message of {message.once}"
        for once, tag in self.once.items():
            assert tag in self.messages, f"{once} points to {tag}, which is gone"
        for inc in self.unacked:
            assert inc in self.workers or inc in self.dying, f"{inc} is dead and would keep its messages"
        for (tenant, _), queue in self.queues.items():
            for tag in queue:
                if tag in self.messages:
                    assert tenant in self._pool(self.messages[tag].pool).ready, f"{tenant} waits and is not ready"
