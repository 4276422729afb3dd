"""One queue interface, two implementations: what every call promises holds on Redis and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from orchestrator.embedded.redis_server import RedisServer
from tenancy.errors import Fenced
from tenancy.link import Link
from tenancy.transport.interface import DeadIncarnation, Delivery, FairQueue
from tenancy.transport.memory import MemoryQueue, Rule
from tenancy.transport.queue import Queue

POOLS = ("default", "gpu")
SERVER = "server-1"
TTL_MS = 4_000


class Bench(Protocol):
    """A queue, and what is done to it from outside: policies, silence, another server."""

    queue: FairQueue

    def policy(self, tenant: str, weight: int = 1, cap: int | None = None, status: str = "active", pool: str = "") -> None: ...
    def silence(self, inc: str) -> None: ...
    def make_due(self) -> None: ...
    def letters(self) -> set[str]: ...
    def rebind(self, server: str) -> None: ...


class OnRedis:
    def __init__(self, link: Link) -> None:
        self.link = link
        self.queue: FairQueue = Queue(link)
        link.server = SERVER
        link.client.flushall()
        self.rebind(SERVER)

    def policy(self, tenant: str, weight: int = 1, cap: int | None = None, status: str = "active", pool: str = "") -> None:
        numbers: dict[Any, Any] = {"weight": weight, "max_running_nodes": "" if cap is None else cap, "status": status, "pool": pool}
        self.link.client.hset(f"hg1:tenant:{tenant}", mapping=numbers)
        self.queue.refresh(tenant)

    def silence(self, inc: str) -> None:
        self.link.client.zadd("hg1:incarnations", {inc: 0})

    def make_due(self) -> None:
        client: Any = self.link.client
        for tag in client.zrange("hg1:delayed", 0, -1):
            client.zadd("hg1:delayed", {tag: 0})

    def letters(self) -> set[str]:
        client: Any = self.link.client
        return set(client.hkeys("hg1:letters"))

    def rebind(self, server: str) -> None:
        self.link.client.hset("hg1:epoch", mapping={"epoch": 1, "server": server, "seq": 0})


class InMemory:
    def __init__(self) -> None:
        self.memory = MemoryQueue(server=SERVER, now_ms=1_800_000_000_000)
        self.queue: FairQueue = self.memory

    def policy(self, tenant: str, weight: int = 1, cap: int | None = None, status: str = "active", pool: str = "") -> None:
        self.memory.rules[tenant] = Rule(weight, cap, status, pool)
        self.memory.refresh(tenant)

    def silence(self, inc: str) -> None:
        self.memory.workers[inc].beat_ms = 0

    def make_due(self) -> None:
        self.memory.delayed = dict.fromkeys(self.memory.delayed, 0)

    def letters(self) -> set[str]:
        return set(self.memory.dead_letters)

    def rebind(self, server: str) -> None:
        self.memory.epoch_server = server


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield Link(server.client_url, server=SERVER)
    server.stop()


@pytest.fixture(params=["redis", "memory"])
def bench(request: pytest.FixtureRequest, link: Link) -> Bench:
    made: Bench = OnRedis(link) if request.param == "redis" else InMemory()
    for inc in ("w1", "w2"):
        made.queue.enroll(inc, TTL_MS, {"name": inc, "tasks": ["t"], "pools": list(POOLS), "slots": 2})
    return made


@pytest.fixture
def queue(bench: Bench) -> FairQueue:
    return bench.queue


def put(queue: FairQueue, payload: str, *, tenant: str = "acme", priority: int = 5, pool: str = "default", **more: Any) -> str:
    return queue.put(payload, tenant, priority, pool, 10, **more)


def take(queue: FairQueue, inc: str = "w1", pool: str = "default") -> Delivery:
    found = queue.pop(inc, pool)
    assert found is not None
    return found


def drain(queue: FairQueue, inc: str = "w1", pool: str = "default") -> list[str]:
    payloads = []
    while found := queue.pop(inc, pool):
        payloads.append(found.payload)
        queue.ack(inc, found.tag, found.number)
    return payloads


def test_a_message_is_delivered_once_and_gone_when_it_is_acknowledged(queue: FairQueue) -> None:
    tag = put(queue, "a")
    assert take(queue) == Delivery(tag, "a", 1)
    assert queue.pop("w2", "default") is None
    assert queue.ack("w1", tag, 1) == 1
    assert queue.ack("w1", tag, 1) == 0


def test_an_acknowledgement_of_another_delivery_or_by_another_worker_changes_nothing(queue: FairQueue) -> None:
    put(queue, "a")
    found = take(queue)
    assert queue.ack("w1", found.tag, 2) == 0
    assert queue.ack("w2", found.tag, 1) == 0
    assert queue.requeue("w2", found.tag, 1) == 0
    assert queue.ack("w1", found.tag, 1) == 1


def test_a_once_id_names_one_message_unless_it_is_replaced(queue: FairQueue) -> None:
    first = put(queue, "a", once="n")
    assert put(queue, "b", once="n") == ""
    second = put(queue, "c", once="n", replace=1)
    assert second not in ("", first)
    assert queue.remove("once", ["n"]) == 1
    assert drain(queue) == ["a"]
    assert put(queue, "d", once="n") != ""


def test_what_is_handed_back_comes_first_and_counts_its_deliveries(queue: FairQueue) -> None:
    put(queue, "a")
    put(queue, "b")
    found = take(queue)
    assert queue.requeue("w1", found.tag, found.number) == 1
    assert take(queue, "w2") == Delivery(found.tag, "a", 2)


def test_a_dead_workers_messages_come_back_in_their_order_before_all_others(bench: Bench) -> None:
    queue = bench.queue
    for payload in "abc":
        put(queue, payload)
    held = [take(queue), take(queue)]
    bench.silence("w1")
    assert queue.reclaim(TTL_MS, 1) == (1, 1)
    assert queue.reclaim(TTL_MS) == (1, 0)
    assert queue.reclaim(TTL_MS) == (0, 0)
    assert [take(queue, "w2").payload for _ in range(3)] == ["a", "b", "c"]
    assert queue.ack("w1", held[0].tag, held[0].number) == 0
    assert queue.beat("w1") == 0
    assert queue.slots("w1", 4) == 0
    with pytest.raises(DeadIncarnation):
        queue.pop("w1", "default")


def test_a_worker_that_beats_keeps_what_it_holds(queue: FairQueue) -> None:
    put(queue, "a")
    found = take(queue)
    assert queue.beat("w1") == 1
    assert queue.reclaim(TTL_MS) == (0, 0)
    assert queue.ack("w1", found.tag, found.number) == 1


def test_a_worker_that_leaves_gives_back_what_it_holds(queue: FairQueue) -> None:
    put(queue, "a")
    take(queue)
    assert queue.retire("w1") == 1
    assert queue.retire("w1") == 0
    assert take(queue, "w2").payload == "a"


def test_what_killed_three_workers_is_a_dead_letter_until_a_person_decides(bench: Bench) -> None:
    queue = bench.queue
    tag = put(queue, "poison")
    for number in range(3):
        inc = f"victim{number}"
        queue.enroll(inc, TTL_MS, {"name": inc, "tasks": [], "pools": list(POOLS)})
        take(queue, inc)
        bench.silence(inc)
        queue.reclaim(TTL_MS)
    assert queue.pop("w1", "default") is None
    assert bench.letters() == {tag}
    assert queue.letters("requeue", [tag, "m999"]) == 1
    assert take(queue).number == 4
    assert queue.requeue("w1", tag, 4) == 1
    assert queue.letters("discard", [tag]) == 0


def test_a_discarded_letter_is_gone(bench: Bench) -> None:
    queue = bench.queue
    tag = put(queue, "poison")
    for inc in ("v1", "v2", "v3"):
        queue.enroll(inc, TTL_MS, {"name": inc})
        take(queue, inc)
        bench.silence(inc)
        queue.reclaim(TTL_MS)
    assert queue.letters("discard", [tag]) == 1
    assert bench.letters() == set()
    assert queue.remove("tag", [tag]) == 0


def test_best_priority_first_and_the_oldest_of_it(queue: FairQueue) -> None:
    for priority in (9, 5, 7, 1, 3, 1):
        put(queue, str(priority), priority=priority)
    assert drain(queue) == ["1", "1", "3", "5", "7", "9"]


def test_a_level_that_was_passed_over_nine_times_gets_its_turn(queue: FairQueue) -> None:
    put(queue, "low", priority=9)
    for _ in range(20):
        put(queue, "high", priority=1)
    assert drain(queue).index("low") == 9


def test_a_changed_priority_puts_a_message_last_in_its_new_line(queue: FairQueue) -> None:
    tags = [put(queue, payload) for payload in "abc"]
    put(queue, "d", priority=1)
    assert queue.reprioritise(1, "tag", [tags[2], tags[2], "m999"]) == 1
    assert drain(queue) == ["d", "c", "a", "b"]


def test_tenants_take_turns_whatever_one_of_them_queues(queue: FairQueue) -> None:
    for number in range(10):
        put(queue, f"a{number}", priority=1)
    put(queue, "b", tenant="birch", priority=9)
    assert "b" in [take(queue).payload for _ in range(2)]


def test_a_delayed_message_comes_when_it_is_due(bench: Bench) -> None:
    queue = bench.queue
    put(queue, "later", delay_ms=60_000)
    found = queue.pop_or_wait("w1", "default", 1_000)
    assert isinstance(found, int)
    assert 0 < found <= 1_000
    bench.make_due()
    assert take(queue).payload == "later"


def test_a_message_can_be_handed_back_for_later(bench: Bench) -> None:
    queue = bench.queue
    put(queue, "a")
    found = take(queue)
    assert queue.requeue("w1", found.tag, found.number, 60_000) == 1
    assert queue.pop("w1", "default") is None
    bench.make_due()
    assert take(queue).number == 2


def test_a_message_goes_to_its_pool_or_its_tenants_or_the_default(bench: Bench) -> None:
    bench.policy("birch", pool="gpu")
    put(bench.queue, "named", tenant="birch", pool="default")
    put(bench.queue, "birch's", tenant="birch", pool="")
    put(bench.queue, "acme's", tenant="acme", pool="")
    assert drain(bench.queue, pool="gpu") == ["birch's"]
    assert sorted(drain(bench.queue)) == ["acme's", "named"]


def test_nothing_of_a_paused_scope_is_popped_and_its_order_is_kept(queue: FairQueue) -> None:
    for payload in "abc":
        put(queue, payload, run="r1.1")
    put(queue, "other", tenant="birch")
    for scope in ("run:r1.1", "tenant:acme", "platform"):
        assert queue.pause(scope, "me", "because") == 1
        assert queue.pause(scope, "me", "because") == 0
        assert drain(queue) == ([] if scope == "platform" else ["other"])
        put(queue, "other", tenant="birch")
        assert queue.resume(scope, "me", "because") == 0
    queue.remove_scope("tenant:birch")
    assert drain(queue) == ["a", "b", "c"]


def test_a_suspended_tenant_keeps_its_messages_and_a_closed_one_ends_them(bench: Bench) -> None:
    put(bench.queue, "a")
    put(bench.queue, "b")
    running = take(bench.queue)
    bench.policy("acme", status="suspended")
    assert bench.queue.pop("w2", "default") is None
    assert bench.queue.ack("w1", running.tag, running.number) == 1
    assert bench.queue.pop("w2", "default") is None
    bench.policy("acme", status="closed")
    assert drain(bench.queue) == ["b"]


def test_a_tenants_cap_holds_over_all_pools_and_room_is_used_in_each(bench: Bench) -> None:
    bench.policy("acme", cap=1)
    put(bench.queue, "a")
    put(bench.queue, "b", pool="gpu")
    first = take(bench.queue)
    assert bench.queue.pop("w2", "gpu") is None
    bench.queue.ack("w1", first.tag, first.number)
    assert take(bench.queue, "w2", "gpu").payload == "b"
    put(bench.queue, "c")
    assert bench.queue.pop("w1", "default") is None
    bench.policy("acme", cap=2)
    assert take(bench.queue).payload == "c"


def test_a_run_has_no_more_places_than_its_cap(queue: FairQueue) -> None:
    queue.cap("r1.1", 1)
    for payload in "abc":
        put(queue, payload, run="r1.1")
    first = take(queue)
    assert queue.pop("w2", "default") is None
    queue.ack("w1", first.tag, first.number)
    assert take(queue, "w2").payload == "b"
    assert queue.pop("w1", "default") is None
    queue.cap("r1.1", None)
    assert take(queue).payload == "c"


def test_a_limit_holds_for_all_tenants_or_for_each(queue: FairQueue) -> None:
    shared, own = {"key": "api", "at_once": 1}, {"key": "api", "at_once": 1, "per": "tenant"}
    for tenant in ("acme", "birch"):
        put(queue, f"{tenant} shared", tenant=tenant, limits=[shared])
    first = take(queue)
    assert queue.pop("w2", "default") is None
    queue.ack("w1", first.tag, first.number)
    assert {first.payload, take(queue).payload} == {"acme shared", "birch shared"}
    for tenant in ("acme", "birch"):
        for _ in range(2):
            put(queue, f"{tenant} own", tenant=tenant, limits=[own])
    assert {take(queue).payload for _ in range(2)} == {"acme own", "birch own"}
    assert queue.pop("w2", "default") is None


def test_a_limit_of_a_task_is_the_one_that_its_workers_declare_when_it_is_popped(queue: FairQueue) -> None:
    for payload in "abcd":
        put(queue, payload, task="t")
    info = {"name": "w", "tasks": ["t"], "pools": list(POOLS), "limits": {"t": [{"key": "api", "at_once": 1}]}}
    queue.enroll("new", TTL_MS, info)
    first = take(queue)
    assert queue.pop("w2", "default") is None
    # The place that is given back is the one that was taken, whatever the task declares since; and no limit holds anybody up any more.
    queue.enroll("newer", TTL_MS, {"name": "w", "tasks": ["t"], "pools": list(POOLS)})
    queue.ack("w1", first.tag, first.number)
    assert [take(queue, "w2").payload for _ in range(3)] == ["b", "c", "d"]


def test_a_rate_lets_so_many_start_and_no_more(queue: FairQueue) -> None:
    for payload in "abc":
        put(queue, payload, limits=[{"key": "api", "rate": 20}])
    assert [take(queue).payload for _ in range(2)] == ["a", "b"]  # a tenth of a minute's
    found = queue.pop_or_wait("w1", "default", 60_000)
    assert isinstance(found, int)
    assert found <= 3_000


def test_removed_messages_are_not_delivered_and_a_held_one_not_again(queue: FairQueue) -> None:
    tags = [put(queue, payload) for payload in "abc"]
    held = take(queue)
    assert queue.remove("tag", [tags[0], tags[1], tags[0], "m999"]) == 2
    assert queue.reprioritise(1, "tag", [tags[0]]) == 0
    assert queue.requeue("w1", held.tag, held.number) == 1
    assert drain(queue, "w2") == ["c"]


def test_a_removed_scope_is_passed_over_and_the_janitor_forgets_it(queue: FairQueue) -> None:
    put(queue, "a", run="r1.1")
    put(queue, "b", run="r1.1")
    last = put(queue, "c", run="r2.1")
    assert queue.remove_scope("run:r1.1") == int(last[1:])
    put(queue, "d", run="r1.1")
    cursor, forgotten = queue.janitor("0")
    while cursor != "0":
        cursor, more = queue.janitor(cursor)
        forgotten += more
    assert forgotten == 2
    assert drain(queue) == ["c", "d"]
    queue.remove_scope("tenant:acme")
    assert drain(queue) == []


def test_a_purge_forgets_what_waits_in_a_pool_or_of_a_tenant_at_a_level_and_nothing_that_is_held(queue: FairQueue) -> None:
    for payload in ("held", "a", "b"):
        put(queue, payload)
    put(queue, "elsewhere", pool="gpu")
    put(queue, "birch's", tenant="birch")
    put(queue, "later", delay_ms=60_000)
    held = take(queue)
    assert purged(queue, tenant="birch", priority=5) == 1
    assert purged(queue, pool="default") == 3
    assert purged(queue, pool="default") == 0
    assert queue.requeue("w1", held.tag, held.number) == 1
    assert drain(queue) == ["held"]
    assert purged(queue) == 1


def purged(queue: FairQueue, **named: Any) -> int:
    cursor, forgotten = queue.purge("0", **named)
    while cursor != "0":
        cursor, more = queue.purge(cursor, **named)
        forgotten += more
    return forgotten


def test_a_limit_that_a_paused_tenant_cannot_use_is_the_others(queue: FairQueue) -> None:
    one = [{"key": "api", "at_once": 1}]
    put(queue, "held", tenant="cedar", limits=one)
    first = take(queue)
    put(queue, "a", tenant="acme", limits=one)
    put(queue, "b", tenant="birch", limits=one)
    assert queue.pop("w2", "default") is None
    queue.pause("tenant:acme", "me", "because")
    queue.ack("w1", first.tag, first.number)
    assert take(queue).payload == "b"


def test_every_call_is_refused_when_the_epoch_is_another_servers(bench: Bench) -> None:
    queue = bench.queue
    tag = put(queue, "a")
    bench.rebind("server-2")
    for call in (
        lambda: queue.enroll("w3", TTL_MS, {}),
        lambda: queue.beat("w1"),
        lambda: queue.slots("w1", 2),
        lambda: queue.retire("w1"),
        lambda: queue.reclaim(TTL_MS),
        lambda: put(queue, "b"),
        lambda: queue.pop("w1", "default"),
        lambda: queue.ack("w1", tag, 1),
        lambda: queue.requeue("w1", tag, 1),
        lambda: queue.remove("tag", [tag]),
        lambda: queue.remove_scope("run:r1.1"),
        lambda: queue.janitor("0"),
        lambda: queue.purge("0"),
        lambda: queue.pause("platform", "me", "because"),
        lambda: queue.resume("platform", "me", "because"),
        lambda: queue.refresh("acme"),
        lambda: queue.reprioritise(1, "tag", [tag]),
        lambda: queue.letters("requeue", [tag]),
        lambda: queue.cap("r1.1", 1),
    ):
        with pytest.raises(Fenced):
            call()
    bench.rebind(SERVER)
    assert drain(queue) == ["a"]
