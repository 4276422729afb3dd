"""The transport on dictionaries: what the scripts put, pop, ack, reclaim and their neighbours mean.

`docs/protocol.md` names the calls; here they are written to be read. Nothing is shared between processes: the clock is
set by the caller, and a change that would be one script is one method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenancy.queues import DEFAULT_POOL
from tenancy.transport.interface import SLEEP_MS, DeadIncarnation, Delivery
from tenancy.transport.memory_places import MemoryPlaces
from tenancy.transport.memory_state import DEATHS_MAX, EXPECTED_MS, RECHECK_MAX_MS, TAGS_MAX, Message, Reply, Rule, Worker, number_of

__all__ = ["TAGS_MAX", "MemoryQueue", "Reply", "Rule"]


class MemoryQueue(MemoryPlaces):
    """One method for each script of the transport; the state and the rules are those of `MemoryPlaces` and `MemoryLines`."""

    # Incarnations

    def enroll(self, inc: str, ttl_ms: int, info: Mapping[str, Any]) -> int:  # noqa: ARG002 - for the log only, as in the script
        """Make the incarnation live; asked again, only its heartbeat changes. What it says of its tasks replaces what was said before."""
        self._fence()
        if inc not in self.workers:
            self.workers[inc] = Worker(self.now_ms, dict(info), int(info.get("slots", 1)))
            self._append("worker.enrolled", inc=inc, info=dict(info))
            for pool in info.get("pools", []):
                self._pool(pool)
            for task in info.get("tasks", []):
                self.limits[task] = [dict(limit) for limit in info.get("limits", {}).get(task, ())]
                self.declared[task] = int(info.get("expected_ms", {}).get(task, 0))
        self.workers[inc].beat_ms = self.now_ms
        return 1

    def slots(self, inc: str, slots: int) -> int:
        """A worker's pool grew or shrank; 0: it is not live."""
        self._fence()
        if inc not in self.workers:
            return 0
        self.workers[inc].slots = slots
        return 1

    def beat(self, inc: str) -> int:
        """Return 0 to a dead or unknown incarnation, which then must take a new one."""
        self._fence()
        if inc not in self.workers:
            return 0
        self.workers[inc].beat_ms = self.now_ms
        self._account_for_held(inc)
        return 1

    @property
    def serves(self) -> dict[str, int]:
        """How many live incarnations serve each task."""
        counts: dict[str, int] = {}
        for worker in self.workers.values():
            for task in worker.info.get("tasks", []):
                counts[task] = counts.get(task, 0) + 1
        return counts

    def reclaim(self, ttl_ms: int, limit: int = TAGS_MAX) -> tuple[int, int]:
        """Declare dead who has not been heard of for `ttl_ms`, and give back at most `limit` tags: (moved, more)."""
        self._fence()
        # Later than now is a time that the clock had before it was set back.
        for worker in self.workers.values():
            worker.beat_ms = min(worker.beat_ms, self.now_ms)
        self.recheck = {name: when if when < self.now_ms + RECHECK_MAX_MS else self.now_ms for name, when in self.recheck.items()}
        silent = [(worker.beat_ms, inc) for inc, worker in self.workers.items() if worker.beat_ms <= self.now_ms - ttl_ms]
        for _, inc in sorted(silent):
            self._bury(inc, "worker.dead")
        return self._give_back(limit), int(bool(self.dying))

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
            for tag in sorted(self.unacked.get(inc, {}), key=number_of, reverse=True)[: limit - moved]:
                self._survive(inc, tag, died=how == "worker.dead")
                moved += 1
            if inc not in self.unacked:
                self.dying.pop(0)
        return moved

    def _survive(self, inc: str, tag: str, *, died: bool) -> None:
        """Give back what a dead worker held; an ordinary message that took three with it becomes a dead letter."""
        message = self.messages.get(tag)
        if message is not None and died:
            message.deaths.append(inc)
            if not message.once and len(message.deaths) >= DEATHS_MAX:
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
        """
        self._fence()
        if once and not replace and self._outstanding(once):
            return ""
        self.tags += 1
        tag = f"m{self.tags}"
        pool = pool or self.rule(tenant).pool or DEFAULT_POOL
        self._pool(pool)
        priority = self.ranks.get(run, priority)
        cost = cost_ms or self.expected.get((tenant, task)) or self.declared.get(task) or EXPECTED_MS
        self.messages[tag] = Message(payload, tenant, priority, pool, cost, once, run, task, tuple(dict(limit) for limit in limits))
        if once:
            self.once[once] = tag
        if delay_ms > 0:
            self._delay(tag, delay_ms)
        else:
            self._line_up(tag)
        return tag

    def pop(self, inc: str, pool: str, sleep_ms: int = SLEEP_MS) -> Delivery | None:
        """Take the next message of a pool, or None. Raises DeadIncarnation."""
        found = self.pop_or_wait(inc, pool, sleep_ms)
        return found if isinstance(found, Delivery) else None

    def pop_or_wait(self, inc: str, pool: str, sleep_ms: int = SLEEP_MS, acks: Sequence[tuple[str, str, int]] = ()) -> Delivery | int:
        """Take the next message of a pool, or return how many ms to wait for its doorbell at most. Raises DeadIncarnation.

        acks: (inc, tag, delivery) of messages to settle before.
        """
        reply = self.pop_row(inc, pool, sleep_ms, acks)
        if reply[0] == "DEAD":
            raise DeadIncarnation(inc)
        return int(reply[1]) if reply[0] == "SLEEP" else Delivery(*reply)

    def pop_row(self, inc: str, pool: str, sleep_ms: int, acks: Sequence[tuple[str, str, int]] = ()) -> Reply:
        """What the script `pop` answers: the next message, by virtual start time, then priority, then age, of those that may go.

        Returns [tag, payload, delivery, and s where its time limit was raised since]; ["SLEEP", ms] when there is none (`inc` is then a
        sleeper) and how long to wait for the bell at most; ["DEAD"] when `inc` is not live.
        """
        self._fence()
        for each in acks:
            self.ack(*each)
        if inc not in self.workers:
            return ["DEAD"]
        line = self._pool(pool)
        line.sleepers.pop(inc, None)
        self._wake_delayed()
        self._end_stops()
        self._look_again()
        while line.ready and "platform" not in self.paused:
            tenant = min(line.ready, key=lambda name: (line.ready[name], name))
            level = self._level(pool, line, tenant)
            if self._is_blocked(tenant):
                self._block(tenant)
            elif level is None:
                del line.ready[tenant]
            else:
                tag = self._take(pool, tenant, level)
                message = self.messages[tag]
                limits = self._limits_of(message)
                obstacle = self._obstacle(message, limits)
                if self._is_removed(tag, message):
                    message.place = ""
                    self._drop(tag)
                    self._pass_on(message)
                elif obstacle is not None:
                    self._park(tag, *obstacle)
                    self._pass_on(message)
                else:
                    return self._deliver(inc, line, tenant, level, tag, limits)
        due = (*self.delayed.values(), *self.recheck.values(), *self.stopped.values())
        ms = max(1, min([sleep_ms, *(when - self.now_ms for when in due)]))
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

    def requeue(self, inc: str, tag: str, delivery: int, delay_ms: int = 0) -> int:
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
        tags = [tag for tag in dict.fromkeys(self._named(kind, ids)) if tag in self.messages]
        for tag in tags:
            self._drop(tag)
        return len(tags)

    def remove_scope(self, scope: str) -> int:
        """Remove every message there is of a tenant or a run; returns the number of the last tag removed."""
        self._fence()
        self.removed[scope] = self.tags
        return self.tags

    def janitor(self, cursor: str, count: int = TAGS_MAX) -> tuple[str, int]:  # noqa: ARG002 - here one call is a whole round
        """Forget removed messages: (next cursor, forgotten)."""
        self._fence()
        gone = [tag for tag, message in self.messages.items() if message.place != "h" and self._is_removed(tag, message)]
        for tag in gone:
            self._drop(tag)
        return "0", len(gone)

    def purge(
        self,
        cursor: str,  # noqa: ARG002 - here one call is a whole round
        count: int = TAGS_MAX,  # noqa: ARG002
        *,
        pool: str = "",
        tenant: str = "",
        priority: int | None = None,
    ) -> tuple[str, int]:
        """Forget messages that nobody holds: (next cursor, forgotten)."""
        self._fence()
        gone = [
            tag
            for tag, message in self.messages.items()
            if message.place not in ("h", "x")
            and pool in ("", message.pool)
            and tenant in ("", message.tenant)
            and priority in (None, message.priority)
        ]
        for tag in gone:
            self._drop(tag)
        return "0", len(gone)

    def pause(self, scope: str, by: str, reason: str) -> int:
        """Pop nothing of `platform`, `tenant:{t}` or `run:{r}` from here on; 0 when it was paused already."""
        self._fence()
        if scope in self.paused:
            return 0
        self.paused.add(scope)
        if scope.startswith("tenant:"):
            self._block(scope.removeprefix("tenant:"))
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
        """A tenant's rule changed: nothing of it is popped from here on, or the room that it may have now is used."""
        self._fence()
        if self._is_blocked(tenant):
            self._block(tenant)
        else:
            self._unblock(tenant)
        return 1

    def reprioritise(self, priority: int, kind: str, ids: Sequence[str]) -> int:
        """Change the priority of messages that wait; one in line goes last in its new line. Returns how many were changed."""
        self._fence()
        named = dict.fromkeys(self._named(kind, ids))
        tags = [tag for tag in named if tag in self.messages and self.messages[tag].priority != priority]
        for tag in tags:
            if self.messages[tag].place == "q":
                self._leave_line(tag)
                self.messages[tag].priority = priority
                self._line_up(tag)
            else:
                self.messages[tag].priority = priority
        return len(tags)

    def letters(self, act: str, tags: Sequence[str]) -> int:
        """`requeue` or `discard` dead letters; returns how many there were."""
        self._fence()
        found = [tag for tag in dict.fromkeys(tags) if tag in self.messages and self.messages[tag].place == "x"]
        for tag in found:
            if act == "requeue":
                del self.dead_letters[tag]
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

    # Promises

    def check(self) -> None:
        """Assert that no message is lost or in two places, that caps hold, that who may go is ready, and that `once` names what exists."""
        places: dict[str, list[str]] = {}
        for name, tags in [
            *(("q", queue) for queue in self.queues.values()),
            ("d", list(self.delayed)),
            ("x", list(self.dead_letters)),
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
            assert (tenant in self._pool(pool).ready) != (tenant in self.blocked), (
                f"{tenant} is neither ready in {pool} nor blocked, or both"
            )
        for pool_name, line in self.pools.items():
            assert all(start >= line.clock for start in line.ready.values()), f"the clock of {pool_name} is past a start"
        for tenant in {message.tenant for message in self.messages.values()} | self.blocked:
            assert (tenant in self.blocked) == self._is_blocked(tenant), f"{tenant} is blocked without a reason, or has one and is not"
        for name in self.parked:
            if self.parked_in(name) and not name.startswith("pause:"):
                assert name in self.recheck, f"nobody looks again whether one of {name} may go"
        for run, cap in self.caps.items():
            if self.parked_in(f"place:{run}"):
                assert self._held(run=run) >= cap or self._let_out(f"place:{run}"), f"{run} has room, and messages wait for it"

    def _let_out(self, name: str) -> bool:
        return any(message.let_out_of == name and message.place == "q" for message in self.messages.values())
