"""The lines of the transport on dictionaries: who waits, who may go, who holds what.

`docs/protocol.md` names what the scripts do; here it is written to be read. The calls are in `memory.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from tenancy.errors import Fenced

TAGS_MAX: Final = 200
"""No script moves more tags than this in one call."""

PATIENCE: Final = 9
"""A level that was passed over so often goes next."""

DEATHS_MAX: Final = 3

EXPECTED_MS: Final = 1_000
"""What a message is expected to take while nothing is known of its task."""

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
    run: str = ""
    task: str = ""
    limits: tuple[dict[str, Any], ...] = ()
    deliveries: int = 0
    place: str = ""
    """q in line, h held, d delayed, x dead letter, or the name of the list where it is parked"""
    let_out_of: str = ""
    """the list that it was parked in before, and could go from"""
    deaths: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Pool:
    """Who waits in a pool and who sleeps there, and its virtual time."""

    ready: dict[str, int] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    """tenants that are paused or at their cap, and therefore not in `ready`"""
    ages: dict[tuple[str, int], int] = field(default_factory=dict)
    """starts of a tenant since the last of this level, while the level waits"""
    clock: int = 0
    finished: dict[str, int] = field(default_factory=dict)
    sleepers: dict[str, int] = field(default_factory=dict)
    bell: int = 0


@dataclass(slots=True)
class Rule:
    """What a tenant's policy says to the queue: share of worker time, and how many of its messages may be held at once."""

    weight: int = 1
    max_running_nodes: int | None = None


@dataclass(slots=True)
class Worker:
    """A live incarnation: its last heartbeat and what it said of itself."""

    beat_ms: int
    info: str


class MemoryLines:
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
        self.popped: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.gone: dict[str, Message] = {}
        self.rules: dict[str, Rule] = {}
        self.paused: set[str] = set()
        self.caps: dict[str, int] = {}
        self.parked: dict[str, list[str]] = {}
        self.buckets: dict[str, tuple[float, int]] = {}
        self.tokens: dict[str, int] = {}
        self.expected: dict[tuple[str, str], int] = {}
        self.removed: dict[str, int] = {}
        self.letters: dict[str, str] = {}
        self.pools: dict[str, Pool] = {}
        self.workers: dict[str, Worker] = {}
        self.dying: list[tuple[str, str]] = []

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

    # Lines

    def _pool(self, name: str) -> Pool:
        return self.pools.setdefault(name, Pool())

    def _line_up(self, tag: str, *, first: bool = False) -> None:
        message = self.messages[tag]
        message.place = "q"
        queue = self.queues.setdefault((message.pool, message.tenant, message.priority), [])
        queue.insert(len(queue) if first else 0, tag)
        pool = self._pool(message.pool)
        if message.tenant not in pool.blocked:
            self._make_ready(pool, message.tenant)
            self._ring(pool)

    @staticmethod
    def _make_ready(pool: Pool, tenant: str) -> None:
        # A tenant that comes back starts at the pool's clock: idle time earns nothing.
        pool.ready.setdefault(tenant, max(pool.clock, pool.finished.get(tenant, 0)))

    def _leave_line(self, tag: str) -> None:
        message = self.messages[tag]
        line = (message.pool, message.tenant, message.priority)
        self.queues[line].remove(tag)
        if not self.queues[line]:
            del self.queues[line]
            self._pool(message.pool).ages.pop((message.tenant, message.priority), None)

    def _level(self, pool: str, line: Pool, tenant: str) -> int | None:
        """The best level that waits, unless one has been passed over nine times: then that, the lowest first."""
        waiting = [priority for priority in _PRIORITIES if (pool, tenant, priority) in self.queues]
        patient = [priority for priority in waiting if line.ages.get((tenant, priority), 0) >= PATIENCE]
        return patient[-1] if patient else waiting[0] if waiting else None

    def _take(self, pool: str, tenant: str, level: int) -> str:
        tag = self.queues[pool, tenant, level][-1]
        self._leave_line(tag)
        return tag

    def _obstacle(self, message: Message) -> str | None:
        """The list to park a message in that may not go now."""
        if message.run:
            if f"run:{message.run}" in self.paused:
                return f"pause:{message.run}"
            if not self._run_has_place(message.run):
                return f"place:{message.run}"
        for limit in message.limits:
            place, wait = self._limit_has_place(limit)
            if wait > 0:
                self.tokens[limit["key"]] = self.now_ms + wait
            if not place:
                return f"limit:{limit['key']}"
        return None

    def _run_has_place(self, run: str) -> bool:
        return run not in self.caps or self._held(run=run) < self.caps[run]

    def _limit_has_place(self, limit: Mapping[str, Any]) -> tuple[bool, int]:
        """Whether one more may be held under a limit now, and how long until it has a token if that is what is missing."""
        if limit.get("at_once") is not None and self._held(limit=limit["key"]) >= limit["at_once"]:
            return False, 0
        wait = self._wait_for_token(limit)[0] if limit.get("rate") else 0
        return wait == 0, wait

    def _wait_for_token(self, limit: Mapping[str, Any]) -> tuple[int, float]:
        """Milliseconds until the limit has a token, and the tokens there are. A bucket holds a tenth of a minute's, at least one."""
        size, per_ms = max(1.0, limit["rate"] / 10), limit["rate"] / 60_000
        tokens, since = self.buckets.get(limit["key"], (size, self.now_ms))
        tokens = min(size, tokens + (self.now_ms - since) * per_ms)
        return (math.ceil((1 - tokens) / per_ms) if tokens < 1 else 0), tokens

    def _held(self, *, tenant: str | None = None, run: str | None = None, limit: str | None = None) -> int:
        """How many messages of a tenant, of a run or under a limit are held."""
        held = [self.gone.get(tag) or self.messages[tag] for tags in self.unacked.values() for tag in tags]
        return sum(
            (tenant is not None and m.tenant == tenant)
            or (run is not None and m.run == run)
            or (limit is not None and any(one["key"] == limit for one in m.limits))
            for m in held
        )

    def _is_blocked(self, tenant: str) -> bool:
        cap = self.rules.get(tenant, Rule()).max_running_nodes
        return f"tenant:{tenant}" in self.paused or (cap is not None and self._held(tenant=tenant) >= cap)

    def _unblock(self, tenant: str) -> None:
        for pool in self.pools.values():
            if tenant in pool.blocked and not self._is_blocked(tenant):
                pool.blocked.discard(tenant)
                self._make_ready(pool, tenant)
                self._ring(pool)

    def _is_removed(self, tag: str, message: Message) -> bool:
        upto = max(self.removed.get(f"tenant:{message.tenant}", 0), self.removed.get(f"run:{message.run}", 0) if message.run else 0)
        return number_of(tag) <= upto

    def _park(self, tag: str, name: str) -> None:
        message = self.messages[tag]
        message.place = name
        parked = self.parked.setdefault(name, [])
        parked.insert(0 if message.let_out_of == name else len(parked), tag)

    def _unpark(self, name: str) -> None:
        """The oldest message parked in a list goes back in line, first."""
        while self.parked.get(name):
            tag = self.parked[name].pop(0)
            message = self.messages.get(tag)
            if message is not None and message.place == name:
                message.let_out_of = name
                self._line_up(tag, first=True)
                return

    def _pass_on(self, message: Message) -> None:
        """A message that had been let out does not go after all: the place that it was let out for is the next one's."""
        if not message.let_out_of:
            return
        if message.run and self._run_has_place(message.run):
            self._unpark(f"place:{message.run}")
        for limit in message.limits:
            if self._limit_has_place(limit)[0]:
                self._unpark(f"limit:{limit['key']}")

    def _deliver(self, inc: str, pool: Pool, tenant: str, level: int, tag: str) -> Reply:
        message = self.messages[tag]
        for limit in message.limits:
            if limit.get("rate"):
                self.buckets[limit["key"]] = (round(self._wait_for_token(limit)[1] - 1, 6), self.now_ms)
                if self.parked.get(f"limit:{limit['key']}"):
                    self.tokens[limit["key"]] = self.now_ms + self._wait_for_token(limit)[0]
        message.deliveries += 1
        message.place, message.let_out_of = "h", ""
        self.unacked.setdefault(inc, {})[tag] = message.deliveries
        self.popped[tag] = self.now_ms
        self.charged[tag] = message.cost_ms
        pool.ages.pop((tenant, level), None)
        for priority in _PRIORITIES:
            if priority != level and (message.pool, tenant, priority) in self.queues:
                pool.ages[tenant, priority] = pool.ages.get((tenant, priority), 0) + 1
        pool.clock = pool.ready[tenant]
        pool.finished[tenant] = pool.ready[tenant] = pool.clock + max(1, message.cost_ms // self.rules.get(tenant, Rule()).weight)
        self._ring(pool)
        return [tag, message.payload, message.deliveries]

    def _let_go(self, inc: str, tag: str) -> None:
        """Take a tag from who holds it: the places it took are free, its tenant's clock is corrected by what it really took."""
        del self.unacked[inc][tag]
        if not self.unacked[inc]:
            del self.unacked[inc]
        took = self.now_ms - self.popped.pop(tag)
        uncharged = took - self.charged.pop(tag)
        message = self.gone.pop(tag, None) or self.messages[tag]
        if message.run:
            self._unpark(f"place:{message.run}")
        for limit in message.limits:
            self._unpark(f"limit:{limit['key']}")
        if message.task:
            known = self.expected.get((message.tenant, message.task), took)
            self.expected[message.tenant, message.task] = max(1, known + (took - known) // 8)
        self._correct(message, uncharged)
        self._unblock(message.tenant)

    def _correct(self, message: Message, ms: int) -> None:
        """Move a tenant's virtual time by worker time that it was not charged for yet, or was charged too much."""
        pool = self._pool(message.pool)
        finish = pool.finished.get(message.tenant, 0) + ms // self.rules.get(message.tenant, Rule()).weight
        pool.finished[message.tenant] = finish
        if message.tenant in pool.ready:
            pool.ready[message.tenant] = max(pool.clock, finish)

    def _charge_overdue(self, inc: str) -> None:
        """What runs for longer than it was expected to is charged as it goes."""
        for tag in self.unacked.get(inc, {}):
            overdue = self.now_ms - self.popped[tag] - self.charged[tag]
            if overdue > 0:
                self.charged[tag] += overdue
                self._correct(self.gone.get(tag) or self.messages[tag], overdue)

    def _release(self, inc: str, tag: str, delay_ms: int = 0, *, demote: bool = False) -> None:
        """Take a tag from who holds it: back in line, first, or delayed."""
        self._let_go(inc, tag)
        if tag not in self.messages:
            return
        if demote:
            self.messages[tag].priority = min(self.messages[tag].priority + 2, _LOWEST)
        if delay_ms > 0:
            self._delay(tag, delay_ms)
        else:
            self._line_up(tag, first=True)

    def _delay(self, tag: str, delay_ms: int) -> None:
        self.messages[tag].place = "d"
        self.delayed[tag] = self.now_ms + delay_ms

    def _wake_delayed(self) -> None:
        due = sorted((when, tag) for tag, when in self.delayed.items() if when <= self.now_ms)
        for _, tag in due[:TAGS_MAX]:
            del self.delayed[tag]
            self._line_up(tag)

    def _wake_limits(self) -> None:
        due = sorted((when, key) for key, when in self.tokens.items() if when <= self.now_ms)
        for _, key in due[:50]:
            del self.tokens[key]
            self._unpark(f"limit:{key}")

    def _bury_letter(self, tag: str, reason: str) -> None:
        self.messages[tag].place = "x"
        self.letters[tag] = reason
        self._append("message.dead", tenant=self.messages[tag].tenant, tag=tag, reason=reason)

    def _ring(self, pool: Pool) -> None:
        if pool.bell < sum(until >= self.now_ms for until in pool.sleepers.values()):
            pool.bell += 1

    def _outstanding(self, once: str) -> bool:
        return self.once.get(once) in self.messages

    def _drop(self, tag: str) -> None:
        """Forget a message wherever it is; one that is held takes its places until its holder lets go of it."""
        message = self.messages.get(tag)
        if message is None:
            return
        if tag in self.popped:
            self.gone[tag] = message
        if message.place == "q":
            self._leave_line(tag)
        del self.messages[tag]
        if message.place == "q":
            self._pass_on(message)
        self.delayed.pop(tag, None)
        self.letters.pop(tag, None)
        if self.once.get(message.once) == tag:
            del self.once[message.once]

    def _drop_once(self, once: str) -> None:
        if once in self.once:
            self._drop(self.once[once])

    def parked_in(self, name: str) -> list[str]:
        """The messages that are parked in a list, the next one first."""
        return [tag for tag in self.parked.get(name, []) if tag in self.messages and self.messages[tag].place == name]


def number_of(tag: str) -> int:
    """The number of a tag: tags are given out in order."""
    return int(tag[1:])
