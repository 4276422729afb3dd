"""The lines of the transport on dictionaries: who waits and who may go.

`docs/protocol.md` names what the scripts do; here it is written to be read. The calls are in `memory.py`.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, Self

from tenancy.errors import Fenced
from tenancy.transport.memory_state import PATIENCE, PRIORITIES, Message, Pool, Rule, Worker


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
        """what an incarnation holds: tag -> number of the delivery"""
        self.popped: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.noted: dict[str, int] = {}
        """until when the service of a held message is in `served`"""
        self.gone: dict[str, Message] = {}
        self.rules: dict[str, Rule] = {}
        self.paused: set[str] = set()
        self.blocked: set[str] = set()
        """tenants that are paused, suspended, stopped or at their cap, and therefore in no pool's `ready`"""
        self.stopped: dict[str, int] = {}
        self.halted: dict[str, int] = {}
        """until when (ms) nothing of a tenant starts"""
        self.caps: dict[str, int] = {}
        self.ranks: dict[str, int] = {}
        """run -> priority of its messages, where it was changed"""
        self.timeouts: dict[str, dict[str, int]] = {}
        """run -> once-id, or * for all -> s to which the time limit of its messages was raised"""
        self.parked: dict[str, list[str]] = {}
        self.out: dict[tuple[str, str], str] = {}
        self.limits: dict[str, list[dict[str, Any]]] = {}
        self.buckets: dict[str, tuple[float, int]] = {}
        self.recheck: dict[str, int] = {}
        self.expected: dict[tuple[str, str], int] = {}
        self.declared: dict[str, int] = {}
        self.served: dict[int, Counter[str]] = {}
        self.removed: dict[str, int] = {}
        self.dead_letters: dict[str, str] = {}
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
        kept = copy.deepcopy(snapshot.__dict__)
        self.__dict__.clear()  # what was set for the first time since then is gone too
        self.__dict__.update(kept)

    def _fence(self) -> None:
        if self.server != self.epoch_server:
            raise Fenced("the epoch is bound to another server run")

    def _append(self, type_: str, **fields: object) -> None:
        self.sequence += 1
        self.events.append({"id": (self.epoch, self.sequence), "t": type_, "at": self.now_ms, **fields})

    # Counts, by what there is; Redis keeps them

    def in_line(self, pool: str) -> tuple[int, int]:
        """Messages in line in a pool whose tenant is not blocked, and the ms that they are expected to take."""
        waiting = [m for m in self.messages.values() if m.place == "q" and m.pool == pool and m.tenant not in self.blocked]
        return len(waiting), sum(m.cost_ms for m in waiting)

    def held_in(self, pool: str) -> int:
        """Messages of a pool that are held."""
        return sum(self._message(tag).pool == pool for tags in self.unacked.values() for tag in tags)

    def slots_of(self, pool: str) -> dict[str, int]:
        """Slots that each live incarnation offers in a pool."""
        return {inc: worker.slots for inc, worker in self.workers.items() if pool in worker.info.get("pools", ())}

    def parked_by(self) -> Counter[str]:
        """Parked messages by tenant."""
        return Counter(m.tenant for m in self.messages.values() if m.is_parked)

    def delayed_by(self) -> Counter[str]:
        """Delayed messages by tenant."""
        return Counter(m.tenant for m in self.messages.values() if m.place == "d")

    # Lines

    def rule(self, tenant: str) -> Rule:
        """What the tenant's policy says to the queue."""
        return self.rules.get(tenant) or Rule()

    def _message(self, tag: str) -> Message:
        """A message, also one that was removed while it was held."""
        return self.gone.get(tag) or self.messages[tag]

    def _pool(self, name: str) -> Pool:
        return self.pools.setdefault(name, Pool())

    def _line_up(self, tag: str, *, first: bool = False) -> None:
        message = self.messages[tag]
        message.place = "q"
        queue = self.queues.setdefault((message.pool, message.tenant, message.priority), [])
        queue.insert(len(queue) if first else 0, tag)
        if message.tenant not in self.blocked:
            self._make_ready(message.pool, message.tenant)

    def _make_ready(self, pool: str, tenant: str) -> None:
        # A tenant that comes back starts at the pool's clock: idle time earns nothing.
        line = self._pool(pool)
        line.ready.setdefault(tenant, max(line.clock, line.finished.get(tenant, 0)))
        self._ring(line)

    def _ring(self, pool: Pool) -> None:
        if pool.bell < sum(until >= self.now_ms for until in pool.sleepers.values()):
            pool.bell += 1

    def _leave_line(self, tag: str) -> None:
        message = self.messages[tag]
        line = (message.pool, message.tenant, message.priority)
        self.queues[line].remove(tag)
        if not self.queues[line]:
            del self.queues[line]
            self._pool(message.pool).ages.pop((message.tenant, message.priority), None)

    def _level(self, pool: str, line: Pool, tenant: str) -> int | None:
        """The best level that waits, unless one has been passed over nine times: then that, the lowest first."""
        waiting = [priority for priority in PRIORITIES if (pool, tenant, priority) in self.queues]
        patient = [priority for priority in waiting if line.ages.get((tenant, priority), 0) >= PATIENCE]
        return patient[-1] if patient else waiting[0] if waiting else None

    def _take(self, pool: str, tenant: str, level: int) -> str:
        tag = self.queues[pool, tenant, level][-1]
        self._leave_line(tag)
        return tag

    # Tenants that may not go

    def _held(self, *, tenant: str | None = None, run: str | None = None, limit: str | None = None) -> int:
        """How many messages of a tenant, of a run or under a limit are held."""
        held = [self._message(tag) for tags in self.unacked.values() for tag in tags]
        return sum(
            (tenant is not None and m.tenant == tenant)
            or (run is not None and m.run == run)
            or (limit is not None and any(one["key"] == limit for one in m.taken))
            for m in held
        )

    def _is_at_cap(self, tenant: str) -> bool:
        cap = self.rule(tenant).max_running_nodes
        return cap is not None and self._held(tenant=tenant) >= cap

    def _is_blocked(self, tenant: str) -> bool:
        suspended = self.rule(tenant).status == "suspended" or tenant in self.stopped
        return suspended or f"tenant:{tenant}" in self.paused or self._is_at_cap(tenant)

    def _stop_until(self, tenant: str, ms: int | None) -> None:
        """Nothing of the tenant starts until then, which ends by itself; None ends it now."""
        if ms is not None:
            self.stopped[tenant] = ms
            self._block(tenant)
        elif self.stopped.pop(tenant, None) is not None:
            self.halted.pop(tenant, None)
            self._unblock(tenant)

    def _end_stops(self) -> None:
        for tenant in [name for name, until in self.stopped.items() if until <= self.now_ms]:
            self._stop_until(tenant, None)

    def _block(self, tenant: str) -> None:
        """Nothing of the tenant is popped from here on, in any pool."""
        self.blocked.add(tenant)
        for pool in self.pools.values():
            pool.ready.pop(tenant, None)

    def _unblock(self, tenant: str) -> None:
        """A tenant that was blocked goes on, if nothing else stands in its way."""
        if tenant not in self.blocked or self._is_blocked(tenant):
            return
        self.blocked.discard(tenant)
        for pool in self.pools:
            if any((pool, tenant, priority) in self.queues for priority in PRIORITIES):
                self._make_ready(pool, tenant)
