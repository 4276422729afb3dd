"""The transport on dictionaries: what the scripts put, pop, ack, reclaim and their neighbours mean.

`docs/protocol.md` names the calls; here they are written to be read. Nothing is shared between processes: the clock is
set by the caller, and a change that would be one script is one method.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any, Final, Self

from tenancy.errors import Fenced

TAGS_MAX: Final = 200
"""No script moves more tags than this in one call."""

_PRIORITIES: Final = (1, 3, 5, 7, 9)
_LOWEST: Final = 9

Reply = list[Any]


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
        self.queues: dict[tuple[str, str, int], list[str]] = {}
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
            raise Fenced("the epoch is bound to another server run")

    def _append(self, type_: str, **fields: object) -> None:
        self.sequence += 1
        self.events.append({"id": (self.epoch, self.sequence), "t": type_, "at": self.now_ms, **fields})

    # Incarnations

    def enroll(self, inc: str, ttl_ms: int, info: str) -> int:  # noqa: ARG002 - for the log only, as in the script
        """Make the incarnation live; asked again, only its heartbeat changes. `info` is JSON; its `tasks` are served."""
        self._fence()
        if inc not in self.workers:
            self.workers[inc] = Worker(self.now_ms, info)
            self._append("worker.enrolled", inc=inc, info=json.loads(info))
        self.workers[inc].beat_ms = self.now_ms
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
        """Declare dead who has not been heard of for `ttl_ms`, and give back at most `limit` tags: [moved, more]."""
        self._fence()
        silent = [(worker.beat_ms, inc) for inc, worker in self.workers.items() if worker.beat_ms <= self.now_ms - ttl_ms]
        for _, inc in sorted(silent):
            self._bury(inc, "worker.dead")
        return [self._give_back(limit), int(bool(self.dying))]

    def retire(self, inc: str) -> int:
        """End an incarnation that leaves by itself; what it still holds goes back at once. 0: it is not live."""
        self._fence()
        if inc not in self.workers:
            return 0
        self._bury(inc, "worker.retired")
        self._give_back(TAGS_MAX)
        return 1

    def _bury(self, inc: str, event: str) -> None:
        """From here on the incarnation holds nothing, whatever it believes: its leases are over."""
        del self.workers[inc]
        self.dying.append(inc)
        self._append(event, inc=inc)

    def _give_back(self, limit: int) -> int:
        moved = 0
        while self.dying and moved < limit:
            inc = self.dying[0]
            # Each goes first in line, so the oldest is the last to go and ends up before the others.
            for tag in sorted(self.unacked.get(inc, {}), key=_number, reverse=True)[: limit - moved]:
                self._release(inc, tag)
                moved += 1
            if inc not in self.unacked:
                self.dying.pop(0)
        return moved

    def _holds(self, inc: str, tag: str, delivery: int | None = None) -> bool:
        """Whether a live incarnation holds the tag (in that delivery)."""
        held = self.unacked.get(inc, {}).get(tag)
        return inc in self.workers and held is not None and delivery in (None, held)

    # Messages

    def put(self, payload: str, tenant: str, priority: int, pool: str, cost_ms: int, once: str, replace: int, delay_ms: int) -> str:
        """Store a message and return its tag, or '' if `once` names one that still exists and `replace` is 0.

        With `replace` the new message is the outstanding one; the former stays in line and finds at the gate that it is late.
        """
        self._fence()
        if once and not replace and self._outstanding(once):
            return ""
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
        """Give the incarnation the next message: least virtual start time, then priority, then age.

        Returns [tag, payload, delivery], [] when there is none (`inc` is then a sleeper), ["DEAD"] when `inc` is not live.
        """
        self._fence()
        if inc not in self.workers:
            return ["DEAD"]
        line = self._pool(pool)
        line.sleepers.pop(inc, None)
        self._wake_delayed()
        while line.ready:
            tenant = min(line.ready, key=lambda name: (line.ready[name], name))
            tag = self._next_of(pool, tenant)
            if tag is not None:
                return self._deliver(inc, line, tenant, tag)
            del line.ready[tenant]
        line.sleepers[inc] = self.now_ms + sleep_ms
        return []

    def ack(self, inc: str, tag: str, delivery: int) -> int:
        """Remove a message for good; 0 if this incarnation is dead or does not hold this delivery."""
        self._fence()
        if not self._holds(inc, tag, delivery):
            return 0
        self._let_go(inc, tag)
        self._drop(tag)
        return 1

    def requeue(self, inc: str, tag: str, delivery: int, delay_ms: int) -> int:
        """Give a message back, first in line or in `delay_ms`; 0 as `ack`."""
        self._fence()
        if not self._holds(inc, tag, delivery):
            return 0
        self._release(inc, tag, delay_ms)
        return 1

    def _pool(self, name: str) -> Pool:
        return self.pools.setdefault(name, Pool())

    def _line_up(self, tag: str, *, first: bool = False) -> None:
        message = self.messages[tag]
        queue = self.queues.setdefault((message.pool, message.tenant, message.priority), [])
        queue.insert(len(queue) if first else 0, tag)
        pool = self._pool(message.pool)
        # A tenant that comes back starts at the pool's clock: idle time earns nothing.
        pool.ready.setdefault(message.tenant, max(pool.clock, pool.finished.get(message.tenant, 0)))
        self._ring(pool)

    def _next_of(self, pool: str, tenant: str) -> str | None:
        """Take the tenant's next tag; a tag whose message is gone is passed over."""
        for priority in _PRIORITIES:
            queue = self.queues.get((pool, tenant, priority), [])
            while queue:
                tag = queue.pop()
                if not queue:
                    del self.queues[pool, tenant, priority]
                if tag in self.messages:
                    return tag
        return None

    def _deliver(self, inc: str, pool: Pool, tenant: str, tag: str) -> Reply:
        message = self.messages[tag]
        message.deliveries += 1
        self.unacked.setdefault(inc, {})[tag] = message.deliveries
        pool.clock = pool.ready[tenant]
        pool.finished[tenant] = pool.ready[tenant] = pool.clock + message.cost_ms
        self._ring(pool)
        return [tag, message.payload, message.deliveries]

    def _let_go(self, inc: str, tag: str) -> None:
        del self.unacked[inc][tag]
        if not self.unacked[inc]:
            del self.unacked[inc]

    def _release(self, inc: str, tag: str, delay_ms: int = 0, *, demote: bool = False) -> None:
        """Take a tag from who holds it: back in line, first, or delayed."""
        self._let_go(inc, tag)
        if tag not in self.messages:
            return
        if demote:
            self.messages[tag].priority = min(self.messages[tag].priority + 2, _LOWEST)
        if delay_ms > 0:
            self.delayed[tag] = self.now_ms + delay_ms
        else:
            self._line_up(tag, first=True)

    def _wake_delayed(self) -> None:
        due = sorted((when, tag) for tag, when in self.delayed.items() if when <= self.now_ms)
        for _, tag in due[:TAGS_MAX]:
            del self.delayed[tag]
            self._line_up(tag)

    def _ring(self, pool: Pool) -> None:
        if pool.bell < sum(until >= self.now_ms for until in pool.sleepers.values()):
            pool.bell += 1

    def _outstanding(self, once: str) -> bool:
        return self.once.get(once) in self.messages

    def _drop(self, tag: str) -> None:
        """Forget a message wherever it is; its tag in a queue is passed over when its turn comes."""
        message = self.messages.pop(tag, None)
        self.delayed.pop(tag, None)
        if message is not None and self.once.get(message.once) == tag:
            del self.once[message.once]

    def _drop_once(self, once: str) -> None:
        if once in self.once:
            self._drop(self.once[once])

    # Promises

    def check(self) -> None:
        """Assert that no message is lost or in two places, that its tenant waits, and that `once` names what exists."""
        places: dict[str, int] = {}
        for tags in (*self.queues.values(), self.delayed, *self.unacked.values()):
            for tag in tags:
                places[tag] = places.get(tag, 0) + 1
        for tag in self.messages:
            assert places.get(tag) == 1, f"{tag} is in {places.get(tag, 0)} places"
        for once, tag in self.once.items():
            assert tag in self.messages, f"{once} points to {tag}, which is gone"
        for inc in self.unacked:
            assert inc in self.workers or inc in self.dying, f"{inc} is dead and would keep its messages"
        for pool, tenant, _ in self.queues:
            assert tenant in self._pool(pool).ready, f"{tenant} waits in {pool} and is not ready"
        for pool_name, line in self.pools.items():
            assert all(start >= line.clock for start in line.ready.values()), f"the clock of {pool_name} is past a start"


def _number(tag: str) -> int:
    return int(tag[1:])
