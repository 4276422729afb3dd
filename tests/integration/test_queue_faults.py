"""Lost replies and clocks that are set back: nothing is lost, and nothing that names itself is there twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cutting import CuttingProxy, cutting
from running import until

from orchestrator.embedded.redis_server import RedisServer
from tenancy.errors import Unavailable
from tenancy.link import Link
from tenancy.lua import load
from tenancy.transport.queue import Delivery, Queue

pytestmark = pytest.mark.timeout(90)
HERE = Path(__file__).resolve().parent
TTL_MS = 4_000
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def direct(server: RedisServer) -> Link:
    """An epoch that is open, and nothing else in Redis."""
    link = Link(server.client_url)
    link.client.flushall()
    link.client.hset("hg1:epoch", mapping={"epoch": 1, "server": link.server_id(), "seq": 0})
    return link


@pytest.fixture
def proxy(server: RedisServer, tmp_path: Path) -> Iterator[CuttingProxy]:
    with cutting(tmp_path / "p", server.socket) as proxy:
        yield proxy


@pytest.fixture
def queue(direct: Link, proxy: CuttingProxy) -> Queue:
    """A queue whose replies can be lost, with two workers."""
    queue = Queue(Link(f"unix://{proxy.path}"))
    for inc in ("w1", "w2"):
        queue.enroll(inc, TTL_MS, {"name": inc, "pools": ["default"]})
    return queue


def lose(proxy: CuttingProxy, script: str) -> None:
    sha = load(f"tenancy/transport/{script}").sha.encode()
    proxy.cut(lambda asked, _: sha in asked)


def twice(proxy: CuttingProxy, queue: Queue, name: str, *arguments: Any) -> Any:
    """Make a call whose reply is lost, then make it again."""
    lose(proxy, name)
    with pytest.raises(Unavailable):
        getattr(queue, name)(*arguments)
    return getattr(queue, name)(*arguments)


def put(queue: Queue, payload: str, once: str = "") -> str:
    return queue.put(payload, "acme", 5, "default", 10, once)


def test_acknowledgements_come_before_the_pop_that_they_ride_with_also_where_redis_knows_no_script(direct: Link) -> None:
    queue = Queue(direct)
    queue.enroll("w1", TTL_MS, {"name": "w1", "pools": ["default"]})
    queue.cap("r.1", 1)
    for payload in ("first", "second"):
        queue.put(payload, "acme", 5, "default", 10, run="r.1")
    first = queue.pop("w1", "default")
    assert first is not None
    direct.client.script_flush()
    direct.prepare("tenancy/transport/pop")  # as after another worker's pop
    direct.close()
    second = queue.pop_or_wait("w1", "default", acks=[("w1", first.tag, first.number)])
    assert isinstance(second, Delivery)
    assert second.payload == "second"


def payloads(queue: Queue, inc: str = "w2") -> list[str]:
    found = []
    while delivery := queue.pop(inc, "default"):
        found.append(delivery.payload)
        queue.ack(inc, delivery.tag, delivery.number)
    return found


@pytest.fixture(autouse=True)
def warm(queue: Queue) -> None:
    """Redis knows every script, so that a command is one message."""
    tag = put(queue, "warm")
    found = queue.pop("w1", "default")
    assert found is not None
    queue.requeue("w1", tag, 1)
    queue.pop("w1", "default")
    queue.ack("w1", tag, 2)
    queue.reclaim(TTL_MS)
    queue.retire("nobody")


def test_a_put_that_names_itself_is_there_once_when_it_is_repeated(proxy: CuttingProxy, queue: Queue) -> None:
    assert twice(proxy, queue, "put", "a", "acme", 5, "default", 10, "n1") == ""
    assert payloads(queue) == ["a"]


def test_a_put_without_a_name_may_be_there_twice_and_is_never_lost(proxy: CuttingProxy, queue: Queue) -> None:
    twice(proxy, queue, "put", "a", "acme", 5, "default", 10)
    assert payloads(queue) == ["a", "a"]


def test_an_acknowledgement_counts_once(proxy: CuttingProxy, queue: Queue) -> None:
    put(queue, "a")
    put(queue, "b")
    found = queue.pop("w1", "default")
    assert found is not None
    assert twice(proxy, queue, "ack", "w1", found.tag, found.number) == 0
    assert payloads(queue) == ["b"]


def test_what_was_handed_back_is_in_line_once(proxy: CuttingProxy, queue: Queue) -> None:
    put(queue, "a")
    found = queue.pop("w1", "default")
    assert found is not None
    assert twice(proxy, queue, "requeue", "w1", found.tag, found.number) == 0
    assert payloads(queue) == ["a"]


def test_a_dead_workers_messages_are_given_back_once(direct: Link, proxy: CuttingProxy, queue: Queue) -> None:
    for payload in "abc":
        put(queue, payload)
    assert [queue.pop("w1", "default") for _ in range(2)]
    direct.client.zadd("hg1:incarnations", {"w1": 0})
    assert twice(proxy, queue, "reclaim", TTL_MS) == (0, 0)
    assert payloads(queue) == ["a", "b", "c"]


def test_a_pop_whose_reply_is_lost_comes_back_with_the_end_of_its_incarnation(proxy: CuttingProxy, queue: Queue) -> None:
    put(queue, "a")
    lose(proxy, "pop")
    with pytest.raises(Unavailable):
        queue.pop("w1", "default")
    assert queue.pop("w2", "default") is None
    queue.retire("w1")
    assert payloads(queue) == ["a"]


def test_who_dies_after_the_clock_was_set_back_is_dead_within_the_usual_silence(direct: Link, queue: Queue) -> None:
    put(queue, "a")
    assert queue.pop("w1", "default")
    client: Any = direct.client
    # What a clock that was an hour ahead left behind.
    row = client.hget("hg1:unacked:w1", client.hkeys("hg1:unacked:w1")[0]).split("|")
    later = str(int(row[1]) + HOUR_MS)
    client.hset("hg1:unacked:w1", client.hkeys("hg1:unacked:w1")[0], f"{row[0]}|{later}|{row[2]}|{later}")
    client.zincrby("hg1:incarnations", HOUR_MS, "w1")
    assert queue.reclaim(TTL_MS) == (0, 0)
    until(lambda: queue.reclaim(1) == (1, 0))
    queue.enroll("w3", TTL_MS, {"name": "w3", "pools": ["default"]})
    assert payloads(queue, "w3") == ["a"]
    assert int(client.hget("hg1:vft:default", "acme")) < HOUR_MS


def test_a_rate_goes_on_after_the_clock_was_set_back(direct: Link, queue: Queue) -> None:
    limits = [{"key": "api", "rate": 10}]
    for payload in "ab":
        queue.put(payload, "acme", 5, "default", 10, limits=limits)
    assert queue.pop("w1", "default")
    assert queue.pop("w1", "default") is None
    client: Any = direct.client
    tokens, since = client.get("hg1:bucket:api").split("|")
    client.set("hg1:bucket:api", f"{tokens}|{int(since) + HOUR_MS}")
    client.zincrby("hg1:recheck", HOUR_MS, "limit:api")
    queue.reclaim(TTL_MS)
    assert payloads(queue) == ["b"]


# A real worker, of ordinary Celery tasks


@contextmanager
def worker(broker: Path, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "FAIR_TEST_BROKER": f"redis+socket://{broker}", "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}"}
    command = [sys.executable, "-m", "celery", "-A", "fair_app", "worker", "-n", "w@h", "--without-gossip", "--without-mingle", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=log.parent, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


@pytest.fixture
def app(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("FAIR_TEST_BROKER", f"redis+socket://{server.socket}")
    sys.modules.pop("fair_app", None)
    import fair_app

    yield fair_app.app
    fair_app.app.close()


def living(link: Link) -> list[str]:
    client: Any = link.client
    return [inc for inc in client.zrange("hg1:incarnations", 0, -1) if inc not in ("w1", "w2")]


def slots(link: Link) -> list[int]:
    client: Any = link.client
    return [int(client.hget("hg1:slots:default", inc) or 0) for inc in living(link)]


def test_a_channel_closes_though_the_bell_rings_after_its_consumers_were_cancelled(direct: Link, app: Any) -> None:
    with app.connection_for_read() as connection:
        channel = connection.channel()
        consumer = app.amqp.TaskConsumer(channel)
        consumer.consume()
        connection.transport.cycle._register_BRPOP(channel)
        assert channel._in_poll
        consumer.cancel()
        assert not channel.pools()
        direct.client.lpush("hg1:bell:default", "1")
        channel.close()
    assert not living(direct)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_never_heard_of_what_it_popped_runs_it_all_the_same(
    pool: str, direct: Link, proxy: CuttingProxy, app: Any, tmp_path: Path
) -> None:
    notes, log = tmp_path / "notes", tmp_path / "worker.log"
    sha = load("tenancy/transport/pop").sha.encode()
    with worker(proxy.path, log, "-P", pool, "-c", "1"):
        until(lambda: living(direct), 30)
        proxy.cut(lambda asked, answered: sha in asked and answered.startswith(b"*3"))
        app.send_task("fair.note", args=[str(notes)])
        until(lambda: notes.exists() and proxy.cuts == 1, 40)
        until(lambda: not direct.client.hlen("hg1:msg"), 20)
    assert len(notes.read_text().splitlines()) == 1, log.read_text()


def test_a_worker_tells_how_many_slots_it_has_when_its_pool_grows_and_shrinks(
    direct: Link, server: RedisServer, app: Any, tmp_path: Path
) -> None:
    with worker(server.socket, tmp_path / "worker.log", "-P", "prefork", "-c", "2"):
        until(lambda: slots(direct) == [2], 30)
        app.control.pool_grow(2)
        until(lambda: slots(direct) == [4])
        app.control.pool_shrink(1)
        until(lambda: slots(direct) == [3])
    assert slots(direct) == []


def test_a_worker_tells_how_many_slots_it_has_when_it_scales_itself(direct: Link, server: RedisServer, app: Any, tmp_path: Path) -> None:
    with worker(server.socket, tmp_path / "worker.log", "-P", "prefork", "--autoscale=2,2"):
        until(lambda: slots(direct) == [2], 30)
        app.control.autoscale(4, 4)
        until(lambda: slots(direct) == [4])
        app.control.autoscale(4, 1)
        app.control.autoscale(1, 1)
        until(lambda: slots(direct) == [1])


@pytest.mark.parametrize("concurrency", ["solo", "prefork"])
def test_one_slot_takes_the_best_priority_first_and_a_lower_level_still_gets_its_turn(
    concurrency: str, direct: Link, server: RedisServer, app: Any, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    for priority in (9, 5, 7, 1, 3):
        app.send_task("fair.note", args=[str(notes), str(priority)], priority=priority)
    with worker(server.socket, tmp_path / "worker.log", "-P", concurrency, "-c", "1"):
        until(lambda: notes.exists() and len(notes.read_text().split()) == 5, 30)
    assert notes.read_text().split() == ["1", "3", "5", "7", "9"]
    app.send_task("fair.note", args=[str(notes), "low"], priority=9)
    for _ in range(30):
        app.send_task("fair.note", args=[str(notes), "high"], priority=1)
    with worker(server.socket, tmp_path / "worker.log", "-P", concurrency, "-c", "1"):
        until(lambda: not direct.client.hlen("hg1:msg"), 30)
    assert notes.read_text().split()[5:].index("low") == 9


# Promises with numbers


def test_a_pause_of_a_tenant_with_ten_thousand_messages_takes_effect_within_50_ms(direct: Link) -> None:
    queue = Queue(direct)
    calls = [("tenancy/transport/put", (f"p{n}", "acme", 5, "default", 10, "", 0, 0, "", "", "[]")) for n in range(10_000)]
    for first in range(0, len(calls), 500):
        direct.batch(calls[first : first + 500])
    client: Any = direct.client
    client.config_resetstat()
    assert queue.pause("tenant:acme", "me", "because") == 1
    spent: dict[str, Any] = client.info("commandstats")
    took_us = sum(row["usec"] for name, row in spent.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))
    assert took_us < 50_000
    assert queue.pop("w2", "default") is None
    assert client.hget("hg1:load", "default") == "0"
    assert json.loads(client.xrevrange("hg1:events", count=1)[0][1]["e"])["t"] == "scope.paused"
    assert queue.resume("tenant:acme", "me", "because") == 0
    assert queue.pop("w2", "default") is not None
