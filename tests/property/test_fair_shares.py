"""Shares of worker time, by simulated workers over the fair queue: on Redis, and on its model."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from clock import NOW_KEY, moved_clock

from orchestrator.embedded.redis_server import RedisServer
from tenancy.link import Link
from tenancy.transport.memory import MemoryQueue, Rule

SERVER = "server-1"
START_MS = 1_800_000_000_000
POOL = "default"
WORKER = "w1"
INFO = json.dumps({"name": WORKER, "tasks": [], "pools": [POOL], "slots": 100})


class Line(Protocol):
    """What the simulation needs of either queue."""

    now_ms: int

    def put(self, tenant: str, priority: int = 5, run: str = "", payload: str = "") -> str: ...
    def pop(self) -> tuple[str, str, int] | None: ...
    def ack(self, tag: str, delivery: int) -> None: ...
    def rule(self, tenant: str, weight: int = 1, cap: int | None = None) -> None: ...
    def cap(self, run: str, places: int) -> None: ...
    def die(self) -> None: ...
    def beat(self) -> None: ...


class OnRedis:
    def __init__(self, link: Link) -> None:
        self.link = link
        self.link.client.flushall()
        self.link.client.hset("hg1:epoch", mapping={"epoch": 1, "server": SERVER, "seq": 0})
        self.now_ms = START_MS
        self.enroll()

    def enroll(self) -> None:
        self.call("enroll", WORKER, 4_000, INFO)

    def call(self, script: str, *arguments: Any) -> Any:
        self.link.client.set(NOW_KEY, self.now_ms)
        return self.link.call(f"tenancy/transport/{script}", *arguments)

    def put(self, tenant: str, priority: int = 5, run: str = "", payload: str = "") -> str:
        return str(self.call("put", payload or tenant, tenant, priority, POOL, 0, "", 0, 0, run, tenant, "[]"))

    def pop(self) -> tuple[str, str, int] | None:
        reply = self.call("pop", WORKER, POOL, 1_000)
        return (reply[0], reply[1], int(reply[2])) if len(reply) == 3 else None

    def ack(self, tag: str, delivery: int) -> None:
        assert self.call("ack", WORKER, tag, delivery) == 1

    def rule(self, tenant: str, weight: int = 1, cap: int | None = None) -> None:
        self.link.client.hset(f"hg1:tenant:{tenant}", mapping={"weight": weight, "max_running_nodes": "" if cap is None else cap})
        self.call("refresh", tenant)

    def cap(self, run: str, places: int) -> None:
        self.call("cap", run, places)

    def beat(self) -> None:
        assert self.call("beat", WORKER) == 1

    def die(self) -> None:
        self.call("retire", WORKER)
        self.enroll()


class InMemory:
    def __init__(self) -> None:
        self.queue = MemoryQueue(server=SERVER, now_ms=START_MS)
        self.enroll()

    def enroll(self) -> None:
        self.queue.enroll(WORKER, 4_000, json.loads(INFO))

    @property
    def now_ms(self) -> int:
        return self.queue.now_ms

    @now_ms.setter
    def now_ms(self, value: int) -> None:
        self.queue.now_ms = value

    def put(self, tenant: str, priority: int = 5, run: str = "", payload: str = "") -> str:
        return self.queue.put(payload or tenant, tenant, priority, POOL, 0, "", 0, 0, run, tenant)

    def pop(self) -> tuple[str, str, int] | None:
        found = self.queue.pop(WORKER, POOL, 1_000)
        return (found.tag, found.payload, found.number) if found else None

    def ack(self, tag: str, delivery: int) -> None:
        assert self.queue.ack(WORKER, tag, delivery) == 1

    def rule(self, tenant: str, weight: int = 1, cap: int | None = None) -> None:
        self.queue.rules[tenant] = Rule(weight, cap)
        self.queue.refresh(tenant)

    def cap(self, run: str, places: int) -> None:
        self.queue.cap(run, places)

    def beat(self) -> None:
        assert self.queue.beat(WORKER) == 1

    def die(self) -> None:
        self.queue.retire(WORKER)
        self.enroll()


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    with moved_clock():
        yield Link(server.client_url, server=SERVER)
    server.stop()


@pytest.fixture(params=["redis", "memory"])
def line(request: pytest.FixtureRequest, link: Link) -> Line:
    return OnRedis(link) if request.param == "redis" else InMemory()


class Fleet:
    """So many slots that take the next message as soon as they are free."""

    def __init__(self, line: Line, slots: int, duration_ms: Callable[[str], int]) -> None:
        self.line, self.slots, self.duration_ms = line, slots, duration_ms
        self.running: list[tuple[int, str, int, str]] = []
        self.starts: list[tuple[int, str]] = []
        self.most = 0
        self.beat_at = line.now_ms

    def step(self) -> bool:
        """Fill the slots, then let time pass until the first of them is free; False when there is nothing to do."""
        while len(self.running) < self.slots and (found := self.line.pop()):
            tag, payload, delivery = found
            self.starts.append((self.line.now_ms, payload))
            heapq.heappush(self.running, (self.line.now_ms + self.duration_ms(payload), tag, delivery, payload))
        self.most = max(self.most, len(self.running))
        if not self.running:
            return False
        ends_at, tag, delivery, _ = heapq.heappop(self.running)
        while self.line.now_ms + 1_000 < ends_at:
            self.line.now_ms += 1_000
            self.line.beat()
        self.line.now_ms = ends_at
        if ends_at - self.beat_at >= 1_000:
            self.line.beat()
            self.beat_at = ends_at
        self.line.ack(tag, delivery)
        return True


def jain(shares: list[float]) -> float:
    """Jain's index of fairness: 1 when all shares are equal, 1/n when one has everything (Jain, Chiu, Hawe 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


TENANTS = {f"t{number:02}": 1 + number % 8 for number in range(50)}


def backlog(line: Line, each: Callable[[str], int]) -> None:
    for tenant, weight in TENANTS.items():
        line.rule(tenant, weight)
        for _ in range(each(tenant)):
            line.put(tenant)


def test_starts_follow_the_weights(line: Line) -> None:
    backlog(line, lambda tenant: 30 * TENANTS[tenant])
    fleet = Fleet(line, 10, lambda _: 1_000)
    while len(fleet.starts) < 3_000:
        assert fleet.step()
    for first in (0, 500, 1_000):
        counts = Counter(tenant for _, tenant in fleet.starts[first : first + 2_000])
        assert jain([counts[tenant] / weight for tenant, weight in TENANTS.items()]) >= 0.99


def test_worker_time_follows_the_weights_when_some_work_takes_a_hundred_times_as_long(line: Line) -> None:
    long = {tenant for number, tenant in enumerate(TENANTS) if number % 2}
    backlog(line, lambda tenant: 40 if tenant in long else 300 * TENANTS[tenant])

    def duration_ms(tenant: str) -> int:
        return 100_000 if tenant in long else 1_000

    fleet = Fleet(line, 100, duration_ms)
    until = START_MS + 600_000
    while line.now_ms < until:
        assert fleet.step()
    used: Counter[str] = Counter()
    for start, tenant in fleet.starts:
        used[tenant] += min(duration_ms(tenant), until - start)
    assert jain([used[tenant] / weight for tenant, weight in TENANTS.items()]) >= 0.95


def test_a_flood_at_the_best_priority_does_not_hold_up_another_tenant_at_the_worst(line: Line) -> None:
    flood = 20_000 if isinstance(line, OnRedis) else 2_000
    for _ in range(flood):
        line.put("acme", 1)
    fleet = Fleet(line, 2, lambda _: 1_000)
    for _ in range(20):
        fleet.step()
    queued_at, before = line.now_ms, len(fleet.starts)
    line.put("birch", 9)
    while "birch" not in (tenant for _, tenant in fleet.starts[before:]):
        assert fleet.step()
    started_at = next(at for at, tenant in fleet.starts if tenant == "birch")
    assert started_at - queued_at <= 2 * 1_000


def test_with_one_slot_the_best_priority_goes_first_and_the_worst_gets_its_turn(line: Line) -> None:
    for priority in (9, 5, 7, 1, 3):
        line.put("acme", priority, payload=str(priority))
    fleet = Fleet(line, 1, lambda _: 10)
    while fleet.step():
        pass
    assert [payload for _, payload in fleet.starts] == ["1", "3", "5", "7", "9"]
    line.put("acme", 9, payload="last")
    for _ in range(50):
        line.put("acme", 1, payload="first")
    fleet.starts.clear()
    while fleet.step():
        pass
    assert [payload for _, payload in fleet.starts].index("last") == 9


@pytest.mark.parametrize("cap", [100, 10])
def test_running_reaches_the_cap_of_a_tenant_and_never_passes_it_also_after_deaths(line: Line, cap: int) -> None:
    line.rule("acme", 1, cap)
    for _ in range(1_000 if isinstance(line, OnRedis) else 300):
        line.put("acme")
    fleet = Fleet(line, 150, lambda _: 1_000)
    for _ in range(30):
        fleet.step()
    assert fleet.most == cap
    line.die()  # what was held comes back, and no place stays taken
    fleet = Fleet(line, 150, lambda _: 1_000)
    while fleet.step():
        pass
    assert fleet.most == cap


def test_a_run_has_no_more_places_than_its_max_parallel(line: Line) -> None:
    line.cap("r1.1", 3)
    for number in range(40):
        line.put("acme", run="r1.1", payload=f"r1-{number}")
        line.put("acme", run="r2.1", payload=f"r2-{number}")
    fleet = Fleet(line, 20, lambda _: 1_000)
    while fleet.step():
        assert sum(payload.startswith("r1-") for *_, payload in fleet.running) <= 3
    assert Counter(payload[:2] for _, payload in fleet.starts) == {"r1": 40, "r2": 40}
    assert [payload for _, payload in fleet.starts if payload.startswith("r1-")] == [f"r1-{number}" for number in range(40)]
