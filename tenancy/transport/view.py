"""The live view of the queues: who waits, since when, who runs, and who received which share. It reads and changes nothing.

Cost: seven round trips at most, each a pipeline, and no search over messages. Per tenant with something to show two commands, per line
of a tenant (pool and priority) one more, and the record of the messages at the lines' heads; per worker what it holds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from tenancy import keys
from tenancy.errors import Unavailable
from tenancy.link import Link
from tenancy.priorities import Priority

LATELY_MIN = 5
"""Minutes, the current one among them, over which shares are taken."""

HEADS = (4, 64, 512)
"""How far from the head of a line its first valid entry is looked for; a line that begins with more stale entries shows no age."""

PIECE = 2_000
"""Fields or commands in one request."""


@dataclass(frozen=True, slots=True)
class LineView:
    """What a tenant has in one pool: messages in line by the name of their priority, age of the oldest of them (seconds, None where
    none waits), and messages held by workers.
    """

    pool: str
    queued: Mapping[str, int]
    oldest_s: float | None
    running: int


@dataclass(frozen=True, slots=True)
class TenantLoad:
    """A tenant with something in line, held, parked or delayed, or that received worker time lately.

    share: of the worker time of the last minutes, 0..1, None where nobody received any. due: its weight over the weights of all tenants
    that got or wanted some. parked: messages that wait for a place, a limit or the end of a run's pause.
    """

    tenant: str
    weight: int
    status: str
    paused: bool
    parked: int
    delayed: int
    share: float | None
    due: float
    lines: tuple[LineView, ...]

    @property
    def queued(self) -> int:
        """Messages in line in all pools."""
        return sum(sum(line.queued.values()) for line in self.lines)

    @property
    def running(self) -> int:
        """Messages held in all pools."""
        return sum(line.running for line in self.lines)


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """A pool: its live slots and what they face.

    load: messages that could run now (in line and not blocked, held, or about to be put in line); capacity: the load that counts as
    full. state: open, or parked while new runs wait; since: epoch seconds, None where it was never parked; parked: how often it was;
    parked_s: for how long altogether, up to now.
    """

    pool: str
    workers: int
    slots: int
    queued: int
    running: int
    load: int
    capacity: int
    state: str
    since: float | None
    parked: int
    parked_s: float


@dataclass(frozen=True, slots=True)
class View:
    """The queues at one moment; `at` is epoch seconds of Redis's clock. waiting: tenants with runs that wait to be admitted."""

    at: float
    paused: bool
    tenants: tuple[TenantLoad, ...]
    pools: tuple[PoolLoad, ...]
    letters: int
    waiting: int


def look(link: Link, *, backlog_per_slot: int, tenant: str | None = None, pool: str | None = None) -> View:
    """Return the queues as they are, busiest tenants first; of one tenant or one pool only where named.

    `backlog_per_slot` makes slots into capacity. Raises Unavailable.
    """
    try:
        return _Reading(link.client, backlog_per_slot, tenant, pool).view()
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise Unavailable(f"Redis at {link.url} did not answer ({error}); nothing is lost, try again when it is back") from error


class _Reading:
    """One look, as a sequence of round trips."""

    def __init__(self, client: redis.Redis, backlog_per_slot: int, tenant: str | None, pool: str | None) -> None:
        self.client = client
        self.backlog_per_slot = backlog_per_slot
        self.only_tenant, self.only_pool = tenant, pool

    def view(self) -> View:
        seconds, micros = (int(part) for part in self._one("TIME"))
        self.now_ms = seconds * 1000 + micros // 1000
        commands: list[tuple[Any, ...]] = [("SMEMBERS", keys.PAUSED), ("SMEMBERS", keys.POOLS)]
        commands += [("HGETALL", key) for key in (keys.LOAD, keys.RUNNING, keys.LOADING, keys.PARKED_BY, keys.DELAYED_BY)]
        first = len(commands)
        commands += [("HGETALL", keys.served(self.now_ms // 60_000 - back)) for back in range(LATELY_MIN)]
        commands += [("HLEN", keys.LETTERS), ("ZCARD", keys.WAITING), ("ZRANGE", keys.INCARNATIONS, 0, -1)]
        replies = self._all(commands)
        paused, pools, load, running, loading, parked, delayed = replies[:first]
        letters, waiting, live = replies[-3:]
        served: Counter[str] = Counter()
        for minute in replies[first:-3]:
            served.update({name: int(ms) for name, ms in minute.items()})
        pools = sorted(each for each in pools if self.only_pool in (None, each))
        counts = self._all([(command, key(each)) for each in pools for command, key in _OF_POOL])
        depths = {each: _depths(counts[at * len(_OF_POOL)]) for at, each in enumerate(pools)}
        held = self._held(live)
        views = [
            self._pool(each, counts[at * len(_OF_POOL) + 1], counts[at * len(_OF_POOL) + 2], depths[each], load, running, loading)
            for at, each in enumerate(pools)
        ]
        tenants = self._tenants(depths, held, served, parked, delayed, paused)
        return View(self.now_ms / 1000, "platform" in paused, tenants, tuple(views), int(letters), int(waiting))

    def _held(self, live: Sequence[str]) -> Counter[tuple[str, str]]:
        """Messages held by (pool, tenant): as many records as there are slots at work."""
        tags = [tag for found in self._all([("HKEYS", keys.unacked(inc)) for inc in live]) for tag in found]
        return Counter((m["q"], m["t"]) for m in self._records(tags).values())

    def _pool(
        self,
        pool: str,
        slots: Mapping[str, str],
        pressure: Mapping[str, str],
        depths: Mapping[tuple[str, int], int],
        load: Mapping[str, str],
        running: Mapping[str, str],
        loading: Mapping[str, str],
    ) -> PoolLoad:
        total = sum(int(each) for each in slots.values())
        state, since = pressure.get("state", "open"), pressure.get("since")
        parked_ms = int(pressure.get("parked_ms", 0)) + (self.now_ms - int(since) if state == "parked" and since else 0)
        return PoolLoad(
            pool=pool,
            workers=len(slots),
            slots=total,
            queued=sum(depths.values()),
            running=int(running.get(pool, 0)),
            load=sum(int(each.get(pool, 0)) for each in (load, running, loading)),
            capacity=total * self.backlog_per_slot,
            state=state,
            since=int(since) / 1000 if since else None,
            parked=int(pressure.get("parked", 0)),
            parked_s=parked_ms / 1000,
        )

    def _tenants(
        self,
        depths: Mapping[str, Mapping[tuple[str, int], int]],
        held: Mapping[tuple[str, str], int],
        served: Mapping[str, int],
        parked: Mapping[str, str],
        delayed: Mapping[str, str],
        paused: Iterable[str],
    ) -> tuple[TenantLoad, ...]:
        waiting = {name for each in depths.values() for name, _ in each}
        wants = waiting | {name for _, name in held} | {name for name, ms in served.items() if ms > 0}
        everybody = sorted(wants | parked.keys() | delayed.keys())
        rules = dict(zip(everybody, self._all([("HMGET", keys.policy(name), "weight", "status") for name in everybody]), strict=True))
        weights = sum(int(rules[name][0] or 1) for name in wants)
        all_ms, paused = sum(served.values()), set(paused)
        shown = [name for name in everybody if self.only_tenant in (None, name)]
        who = set(shown)
        oldest = self._oldest({(pool, *line) for pool, each in depths.items() for line in each if line[0] in who})
        found = []
        for name in shown:
            lines = [self._line(name, pool, depths[pool], held, oldest) for pool in depths]
            weight = int(rules[name][0] or 1)
            found.append(
                TenantLoad(
                    tenant=name,
                    weight=weight,
                    status=rules[name][1] or "active",
                    paused=f"tenant:{name}" in paused,
                    parked=int(parked.get(name, 0)),
                    delayed=int(delayed.get(name, 0)),
                    share=served.get(name, 0) / all_ms if all_ms else None,
                    due=weight / weights if name in wants else 0.0,
                    lines=tuple(line for line in lines if line.queued or line.running),
                )
            )
        if self.only_pool is not None:
            found = [each for each in found if each.lines]
        return tuple(sorted(found, key=lambda each: (-each.queued - each.running, each.tenant)))

    def _line(
        self,
        tenant: str,
        pool: str,
        depths: Mapping[tuple[str, int], int],
        held: Mapping[tuple[str, str], int],
        oldest: Mapping[tuple[str, str, int], int],
    ) -> LineView:
        queued = {level.name.lower(): depths[tenant, level] for level in Priority if (tenant, level) in depths}
        since = min((oldest[pool, tenant, level] for level in Priority if (pool, tenant, level) in oldest), default=None)
        age_s = None if since is None else max(0.0, (self.now_ms - since) / 1000)
        return LineView(pool, queued, age_s, held.get((pool, tenant), 0))

    def _oldest(self, lines: set[tuple[str, str, int]]) -> dict[tuple[str, str, int], int]:
        """Since when (ms) the first message of each line waits; stale entries before it are passed over."""
        found: dict[tuple[str, str, int], int] = {}
        left = sorted(lines)
        for reach in HEADS:
            rows = self._all([("LRANGE", keys.queue(*line), -reach, -1) for line in left])
            entries = {line: [entry.rsplit(":", 1) for entry in reversed(row)] for line, row in zip(left, rows, strict=True)}
            records = self._records({tag for row in entries.values() for tag, _ in row})
            for line, row in entries.items():
                valid = (records[tag] for tag, k in row if tag in records and records[tag]["w"] == "q" and str(records[tag]["k"]) == k)
                first = next(valid, None)
                if first is not None:
                    found[line] = int(first["s"])
            left = [line for line, row in entries.items() if line not in found and len(row) == reach]
            if not left:
                break
        return found

    def _records(self, tags: Iterable[str]) -> dict[str, dict[str, Any]]:
        wanted = sorted(tags)
        pieces = [wanted[first : first + PIECE] for first in range(0, len(wanted), PIECE)]
        replies = self._all([("HMGET", keys.META, *piece) for piece in pieces])
        texts = (text for reply in replies for text in reply)
        return {tag: json.loads(text) for tag, text in zip(wanted, texts, strict=True) if text is not None}

    def _one(self, *command: Any) -> Any:
        return self.client.execute_command(*command)

    def _all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Replies in order; so many commands go out at a time that Redis serves others in between."""
        replies: list[Any] = []
        for first in range(0, len(commands), PIECE):
            with self.client.pipeline(transaction=False) as pipe:
                for command in commands[first : first + PIECE]:
                    pipe.execute_command(*command)
                replies += pipe.execute()
        return replies


_OF_POOL = (("HGETALL", keys.depth), ("HGETALL", keys.slots), ("HGETALL", keys.pressure))


def _depths(row: Mapping[str, str]) -> dict[tuple[str, int], int]:
    found = {}
    for name, count in row.items():
        tenant, priority = name.rsplit("|", 1)
        if int(count) > 0:
            found[tenant, int(priority)] = int(count)
    return found
