"""Prefork, threads and solo: each pool serves tenants, remote control and events; ordinary queues and a lost broker beside it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pool_tasks
import pytest
import redis
from kombu.exceptions import OperationalError
from pools import KINDS, SLOTS, Pools, command
from running import producer, until

from orchestrator.embedded import Stack
from orchestrator.embedded.commands import Commands
from orchestrator.graph import Graph
from orchestrator.settings import Settings

HERE = Path(__file__).resolve().parent
EACH = 40
TASKS = ("pool_tasks", "talking_tasks")
TENANTS = [f"{name}-{kind}" for name in ("light", "heavy") for kind in KINDS] + [f"tenant-{at}" for at in range(10)]


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    home = Path(tempfile.mkdtemp(prefix="hgpools"))
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [before.get("PYTHONPATH")])])
    os.environ[pool_tasks.NOTES] = str(home / "notes.jsonl")
    try:
        with Stack(Settings(home=home), len(KINDS), 2, TASKS, console=False, commands=Commands(worker=command)) as stack:
            client = producer(Settings(home=home, redis_url=stack.redis_url, tasks=TASKS))
            with redis.Redis.from_url(stack.client_url, decode_responses=True) as connection:
                for tenant in TENANTS:
                    client.tenants.create(tenant, weight=3 if tenant.startswith("heavy") else 1)
                yield Pools(stack, client, connection, home / "notes.jsonl")
            client.engine.dispose()
            client.kernel.link.close()
            client.kernel.app.close()
    finally:
        os.environ.clear()
        os.environ.update(before)
        Settings.forget()
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_runs_the_messages_of_each_tenant_in_order_and_gives_tenants_their_shares(kind: str, pools: Pools) -> None:
    light, heavy = f"light-{kind}", f"heavy-{kind}"
    pools.queue.pause("platform", "test", "everything is in line before anything starts")
    labels = [f"{tenant}-{at:02}" for at in range(EACH) for tenant in (light, heavy)]
    for label in labels:
        pools.send(label, 0.05, tenant=label.rpartition("-")[0], pool=kind)
    pools.queue.resume("platform", "test", "")
    began = [note.label for note in pools.until_ended(labels)]
    assert len(began) == len(labels)
    for tenant in (light, heavy):
        order = [int(label.rpartition("-")[2]) for label in began if label.startswith(tenant)]
        # Two slots begin within the same moment, and either may write first.
        assert max(abs(at - place) for place, at in enumerate(order)) <= SLOTS[kind] - 1
    # Shares are of time as it was measured: a stall of the machine is charged to whose message it met. test_fair_shares.py is exact.
    assert sum(label.startswith(heavy) for label in began[:EACH]) == pytest.approx(0.75 * EACH, abs=8)


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_side_by_side_in_a_pool_of_any_kind_have_logs_that_are_never_mixed(kind: str, pools: Pools) -> None:
    nodes = [
        {"id": f"n{at}", "task": "talk.chatter", "params": {"words": f"I am n{at}", "times": 30}, "pool": kind, "attempts": 1}
        for at in range(2 * SLOTS[kind])
    ]
    run = pools.client.submit(Graph.parse({"name": "chatter", "nodes": nodes})).wait(60)
    assert run.outcome == "succeeded"
    for node in nodes:
        lines = run.logs(node["id"])
        expected = [(level, f"I am {node['id']} {number}") for number in range(30) for level in ("stdout", "WARNING")]
        assert [(line.level, line.text) for line in lines] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_of_any_kind_is_not_slower_than_its_slots(kind: str, pools: Pools) -> None:
    labels = [f"quick-{kind}-{at}" for at in range(100)]
    for label in labels:
        pools.send(label, pool=kind)
    began = pools.until_ended(labels)
    # A slot that is free and does not ask for its next message would wait for the doorbell, up to a second for each.
    assert began[-1].at - began[0].at < 5


def test_inspect_and_control_reach_every_pool(pools: Pools) -> None:
    names = {kind: pools.worker(kind) for kind in KINDS}
    inspect = pools.app.control.inspect(list(names.values()), timeout=5)
    assert set(inspect.ping()) == set(names.values())
    assert {stats["pool"]["implementation"].rpartition(":")[2] for stats in inspect.stats().values()} == {"TaskPool"}
    for kind in ("prefork", "threads"):  # solo answers when its one task has ended, in stock Celery too
        pools.send(f"active-{kind}", 2.0, pool=kind)
        until(lambda kind=kind: pools.notes([f"active-{kind}"]))
        active = pools.app.control.inspect([names[kind]], timeout=5).active()[names[kind]]
        assert [task["name"] for task in active] == ["pools.note"]
    limited = pools.app.control.rate_limit("pools.note", "6/m", destination=[names["prefork"]], reply=True, timeout=5)
    assert "ok" in limited[0][names["prefork"]]
    unlimited = pools.app.control.rate_limit("pools.note", "0", destination=[names["prefork"]], reply=True, timeout=5)
    assert "ok" in unlimited[0][names["prefork"]]
    timed = pools.app.control.time_limit("pools.note", soft=50, hard=60, destination=[names["prefork"]], reply=True, timeout=5)
    assert "ok" in timed[0][names["prefork"]]
    pools.until_ended([f"active-{kind}" for kind in ("prefork", "threads")])


def test_events_tell_what_every_pool_runs(pools: Pools) -> None:
    seen: dict[str, list[tuple[str, str]]] = {}
    ready, stop = threading.Event(), threading.Event()

    def receive() -> None:
        handlers = {"*": lambda event: seen.setdefault(event.get("uuid", ""), []).append((event["type"], event["hostname"]))}
        # A receiver consumes over a connection of its own.
        with (
            pools.app.connection_for_read() as given,
            pools.app.events.Receiver(given, handlers=handlers).consumer_context() as (connection, _channel, _consumers),
        ):
            ready.set()
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        assert ready.wait(10)
        until(lambda: seen.get(""))  # a heartbeat: it is subscribed
        ids = {kind: pools.send(f"event-{kind}", pool=kind) for kind in KINDS}
        until(lambda: all(any(what == "task-succeeded" for what, _ in seen.get(each, [])) for each in ids.values()))
    finally:
        stop.set()
        thread.join(10)
    for at, kind in enumerate(KINDS, 1):
        types = [what for what, _ in seen[ids[kind]]]
        assert {"task-received", "task-started", "task-succeeded"} <= set(types)
        assert all(host.startswith(f"w{at}@") for what, host in seen[ids[kind]] if what != "task-sent")


def test_a_batch_publishes_many_messages_in_a_few_round_trips(pools: Pools) -> None:
    labels = [f"batch-{at}" for at in range(500)]
    pools.send("warm-up", pool="threads")
    pools.until_ended(["warm-up"])
    pools.queue.pause("platform", "test", "so that only the producer talks")

    def trips() -> int:
        return int(pools.redis.info("stats")["total_reads_processed"])

    try:
        before = trips()
        with pools.app.producer_or_acquire() as publisher, publisher.batch(500):
            for label in labels:
                pools.send(label, tenant=f"tenant-{label[-1]}", pool="threads", producer=publisher)
        taken = trips() - before
    finally:
        pools.queue.resume("platform", "test", "")
    # Heartbeats, doorbells, recorder and beat talk meanwhile; one trip for each message alone would be 500.
    assert taken < 250
    assert len(pools.until_ended(labels)) == len(labels)


def test_ordinary_celery_queues_are_served_beside_a_fair_queue_that_keeps_every_slot_busy(pools: Pools) -> None:
    flood = [f"flood-{at}" for at in range(200)]
    for label in flood:
        pools.send(label, 0.03, pool="prefork")
    for queue in ("other", "system"):
        pools.send(f"ordinary-{queue}", queue=queue)
    pools.until_ended(["ordinary-other", "ordinary-system"], 10)
    assert len(pools.notes(flood, "ended")) < len(flood)
    pools.until_ended(flood)


@pytest.mark.parametrize("kind", KINDS)
def test_a_countdown_is_held_in_redis_and_delivered_when_it_is_due(kind: str, pools: Pools) -> None:
    pools.until_quiet()
    due = time.time() + 1.5
    pools.send(f"later-{kind}", pool=kind, countdown=1.5)
    assert pools.redis.zcard("hg1:delayed") == 1
    inspect = pools.app.control.inspect([pools.worker(kind)], timeout=5)
    assert not any(inspect.scheduled().values())
    assert not any(inspect.reserved().values())
    assert not list(pools.redis.scan_iter("hg1:unacked:*"))
    assert -0.01 < pools.until_ended([f"later-{kind}"])[0].at - due < 1.0


def test_a_broker_that_is_killed_and_comes_back_loses_nothing(pools: Pools) -> None:
    pools.until_quiet()
    labels = [f"outage-{kind}-{at}" for kind in KINDS for at in range(60)]
    pid = pools.stack.pids()["redis"]
    for label in labels[:-10]:
        pools.send(label, 0.02, pool=label.split("-")[1])
    os.kill(pid, signal.SIGKILL)
    for label in labels[-10:]:  # a producer that tries again until it is told that the message is taken
        _insist(pools, label)
    assert pools.stack.pids()["redis"] != pid
    # 1.2 s of work for one slot: a loop that nobody wakes any more would do one message a second.
    pools.until_ended(labels, 25)
    pools.until_quiet()


def _insist(pools: Pools, label: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            pools.send(label, pool=label.split("-")[1])
            return
        except (OperationalError, redis.RedisError):
            assert time.monotonic() < deadline
