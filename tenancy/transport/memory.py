"""The transport on dictionaries: what the scripts put, pop, ack, reclaim and their neighbours mean.

`docs/protocol.md` names the calls; here they are written to be read. Nothing is shared between processes: the clock is
set by the caller, and a change that would be one script is one method.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
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

    # Incarnations

    def enroll(self, inc: str, ttl_ms: int, info: str) -> int:  # noqa: ARG002 - for the log only, as in the script
        """Make the incarnation live; asked again, only its heartbeat changes. `info` is JSON; its `tasks` are served."""
        self._fence()
        if inc not in self.workers:
            self.workers[inc] = Worker(self.now_ms, info)
            self._append("worker.enrolled", inc=inc, info=json.loads(info))
            for pool in json.loads(info).get("pools", []):
                self._pool(pool)
        self.workers[inc].beat_ms = self.now_ms
        return 1

    def beat(self, inc: str) -> int:
        """Return 0 to a dead or unknown incarnation, which then must take a new one."""
        self._fence()
        if inc not in self.workers:
            return 0
        self.workers[inc].beat_ms = self.now_ms
        self._charge_overdue(inc)
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
        self.dying.append((inc, event))
        self._append(event, inc=inc)

    def _give_back(self, limit: int) -> int:
        moved = 0
        while self.dying and moved < limit:
            inc, how = self.dying[0]
            # Each goes first in line, so the oldest is the last to go and ends up before the others.
            for tag in sorted(self.unacked.get(inc, {}), key=_number, reverse=True)[: limit - moved]:
                self._survive(inc, tag, died=how == "worker.dead")
                moved += 1
            if inc not in self.unacked:
                self.dying.pop(0)
        return moved

    def _survive(self, inc: str, tag: str, *, died: bool) -> None:
        """Give back what a dead worker held; an ordinary message that took three with it becomes a dead letter."""
        message = self.messages.get(tag)
        if message is not None and died and not message.once:
            message.deaths.append(inc)
            if len(message.deaths) >= DEATHS_MAX:
                self._let_go(inc, tag)
                self._bury_letter(tag, "three workers died while they held it")
                return
        self._release(inc, tag)

    def _holds(self, inc: str, tag: str, delivery: int | None = None) -> bool:
        """Whether a live incarnation holds the tag (in that delivery)."""
        held = self.unacked.get(inc, {}).get(tag)
        return inc in self.workers and held is not None and delivery in (None, held)

    # Messages

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
        """Store a message and return its tag, or '' if `once` names one that still exists and `replace` is 0.

        With `replace` the new message is the outstanding one; the former stays in line and finds at the gate that it is late.
        A cost of 0 is what the task took lately, else a second.
        """
        self._fence()
        if once and not replace and self._outstanding(once):
            return ""
        self.tags += 1
        tag = f"m{self.tags}"
        self._pool(pool)
        cost = cost_ms or self.expected.get((tenant, task), EXPECTED_MS)
        self.messages[tag] = Message(payload, tenant, priority, pool, cost, once, run, task, tuple(dict(limit) for limit in limits))
        if once:
            self.once[once] = tag
        if delay_ms > 0:
            self._delay(tag, delay_ms)
        else:
            self._line_up(tag)
        return tag

    def pop(self, inc: str, pool: str, sleep_ms: int) -> Reply:
        """Give the incarnation the next message: least virtual start time, then priority, then age, of those that may go.

        Returns [tag, payload, delivery]; ["SLEEP", ms] when there is none (`inc` is then a sleeper) and how long to wait for the bell at
        most; ["DEAD"] when `inc` is not live.
        """
        self._fence()
        if inc not in self.workers:
            return ["DEAD"]
        line = self._pool(pool)
        line.sleepers.pop(inc, None)
        self._wake_delayed()
        self._wake_limits()
        while line.ready and "platform" not in self.paused:
            tenant = min(line.ready, key=lambda name: (line.ready[name], name))
            level = self._level(pool, line, tenant)
            if self._is_blocked(tenant):
                del line.ready[tenant]
                line.blocked.add(tenant)
            elif level is None:
                del line.ready[tenant]
            else:
                tag = self._take(pool, tenant, level)
                message = self.messages[tag]
                obstacle = self._obstacle(message)
                if self._is_removed(tag, message):
                    message.place = ""
                    self._drop(tag)
                    self._pass_on(message)
                elif obstacle is not None:
                    self._park(tag, obstacle)
                    self._pass_on(message)
                else:
                    return self._deliver(inc, line, tenant, level, tag)
        ms = max(1, min([sleep_ms, *(when - self.now_ms for when in (*self.delayed.values(), *self.tokens.values()))]))
        line.sleepers[inc] = self.now_ms + ms
        return ["SLEEP", ms]

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

    # Control

    def remove(self, kind: str, ids: Sequence[str]) -> int:
        """Remove messages by `once` ids or `tag`s; one that is held is not delivered again. Returns how many existed."""
        self._fence()
        tags = [tag for tag in self._named(kind, ids) if tag in self.messages]
        for tag in tags:
            self._drop(tag)
        return len(tags)

    def remove_scope(self, scope: str) -> int:
        """Remove every message there is of a tenant or a run; returns the number of the last tag removed."""
        self._fence()
        self.removed[scope] = self.tags
        return self.tags

    def janitor(self, cursor: str, count: int) -> Reply:  # noqa: ARG002 - here one call is a whole round
        """Forget removed messages: [next cursor, forgotten]."""
        self._fence()
        gone = [tag for tag, message in self.messages.items() if message.place != "h" and self._is_removed(tag, message)]
        for tag in gone:
            self._drop(tag)
        return ["0", len(gone)]

    def pause(self, scope: str, by: str, reason: str) -> int:
        """Pop nothing of `platform`, `tenant:{t}` or `run:{r}` from here on; 0 when it was paused already."""
        self._fence()
        if scope in self.paused:
            return 0
        self.paused.add(scope)
        self._append("scope.paused", scope=scope, by=by, reason=reason)
        return 1

    def resume(self, scope: str, by: str, reason: str) -> int:
        """End a pause; what was parked returns in its order. Here one call returns all of it, and the reply is 0."""
        self._fence()
        if scope not in self.paused:
            return 0
        kind, _, name = scope.partition(":")
        parked = self.parked.pop(f"pause:{name}", []) if kind == "run" else []
        for tag in reversed(parked):
            if tag in self.messages and self.messages[tag].place == f"pause:{name}":
                self._line_up(tag, first=True)
        self.paused.discard(scope)
        self._append("scope.resumed", scope=scope, by=by, reason=reason)
        if kind == "tenant":
            self._unblock(name)
        for pool in self.pools.values():
            self._ring(pool)
        return 0

    def refresh(self, tenant: str) -> int:
        """A tenant's rule changed: the room that it may have now is used."""
        self._fence()
        self._unblock(tenant)
        return 1

    def reprioritise(self, priority: int, kind: str, ids: Sequence[str]) -> int:
        """Change the priority of messages that wait; one in line goes last in its new line. Returns how many were changed."""
        self._fence()
        tags = [tag for tag in self._named(kind, ids) if tag in self.messages and self.messages[tag].priority != priority]
        for tag in tags:
            if self.messages[tag].place == "q":
                self._leave_line(tag)
                self.messages[tag].priority = priority
                self._line_up(tag)
            else:
                self.messages[tag].priority = priority
        return len(tags)

    def letters_(self, act: str, tags: Sequence[str]) -> int:
        """`requeue` or `discard` dead letters; returns how many there were."""
        self._fence()
        found = [tag for tag in tags if tag in self.messages and self.messages[tag].place == "x"]
        for tag in found:
            if act == "requeue":
                del self.letters[tag]
                self.messages[tag].deaths = []
                self._line_up(tag)
            else:
                self._drop(tag)
        return len(found)

    def cap(self, run: str, max_parallel: int | None) -> int:
        """Set how many messages of a run may be held at once."""
        self._fence()
        if max_parallel is None:
            self.caps.pop(run, None)
        else:
            self.caps[run] = max_parallel
        for _ in range(min(TAGS_MAX, TAGS_MAX if max_parallel is None else max_parallel)):
            self._unpark(f"place:{run}")
        return 1

    def _named(self, kind: str, ids: Sequence[str]) -> list[str]:
        return [self.once.get(id_, "") if kind == "once" else id_ for id_ in ids]

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
        return _number(tag) <= upto

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

    # Promises

    def check(self) -> None:
        """Assert that no message is lost or in two places, that caps hold, that who may go is ready, and that `once` names what exists."""
        places: dict[str, list[str]] = {}
        for name, tags in [
            *(("q", queue) for queue in self.queues.values()),
            ("d", list(self.delayed)),
            ("x", list(self.letters)),
            *self.parked.items(),
            *(("h", list(held)) for held in self.unacked.values()),
        ]:
            for tag in tags:
                if tag in self.messages and self.messages[tag].place == name:
                    places.setdefault(tag, []).append(name)
        for tag, message in self.messages.items():
            assert places.get(tag) == [message.place], f"{tag} says {message.place!r} and is in {places.get(tag)}"
        for once, tag in self.once.items():
            assert tag in self.messages, f"{once} points to {tag}, which is gone"
        for inc in self.unacked:
            assert inc in self.workers or inc in dict(self.dying), f"{inc} is dead and would keep its messages"
        for pool, tenant, _ in self.queues:
            line = self._pool(pool)
            assert (tenant in line.ready) != (tenant in line.blocked), f"{tenant} waits in {pool} and is neither ready nor blocked, or both"
        for pool_name, line in self.pools.items():
            assert all(start >= line.clock for start in line.ready.values()), f"the clock of {pool_name} is past a start"
            for tenant in line.blocked:
                assert self._is_blocked(tenant), f"{tenant} is blocked in {pool_name} without a reason"
        for run, cap in self.caps.items():
            if self.parked_in(f"place:{run}"):
                assert self._held(run=run) >= cap or self._let_out(f"place:{run}"), f"{run} has room, and messages wait for it"

    def parked_in(self, name: str) -> list[str]:
        """The messages that are parked in a list, the next one first."""
        return [tag for tag in self.parked.get(name, []) if tag in self.messages and self.messages[tag].place == name]

    def _let_out(self, name: str) -> bool:
        return any(message.let_out_of == name and message.place == "q" for message in self.messages.values())


def _number(tag: str) -> int:
    return int(tag[1:])
