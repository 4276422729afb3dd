"""A pause holds at once, is on record before it is acknowledged, and outlives restarts of everything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import Running, until
from sqlalchemy import select

from orchestrator import Refused, Unavailable, Unknown
from orchestrator.client import Client
from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.pauses import pause, resume
from orchestrator.recorder.ask import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store import tables as t
from orchestrator.store.engine import open_engine
from tests.integration.hands import POOL, Hands, drain, layers

TIMEOUT_S = 30


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """The recorder at work in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=recorder.run, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def make_tenant(recorder: Recorder, hands: Hands, tenant: str) -> None:
    append_request(hands.link, "request.tenant", {"tenant": tenant, "policy": {}})
    drain(recorder)


def act(recorder: Recorder, change: Callable[..., bool], scope: str) -> bool:
    with recording(recorder):
        return change(recorder.link, recorder.engine, scope, "too loud", "ann")


def test_a_pause_is_on_record_when_it_is_acknowledged_and_so_is_its_end(recorder: Recorder, hands: Hands) -> None:
    make_tenant(recorder, hands, "acme")
    hands.queue.put("{}", "acme", 5, POOL, 1000)
    with recording(recorder):
        assert pause(hands.link, recorder.engine, "tenant:acme", "too loud", "ann")
        (held,) = read.pauses(recorder.engine)
        assert (held.scope, held.by, held.reason) == ("tenant:acme", "ann", "too loud")
        assert hands.queue.pop(hands.inc, POOL, 1) is None
        assert not pause(hands.link, recorder.engine, "tenant:acme", "again", "bob")
        assert read.pauses(recorder.engine) == [held]
        assert resume(hands.link, recorder.engine, "tenant:acme", "quiet now", "bob")
        assert read.pauses(recorder.engine) == []
        assert not resume(hands.link, recorder.engine, "tenant:acme", "quiet now", "bob")
    assert hands.queue.pop(hands.inc, POOL, 1)
    trail = [(line.action, line.actor, line.reason) for line in read.audit(recorder.engine, "acme")[1:]]
    assert trail == [("scope.paused", "ann", "too loud"), ("scope.resumed", "bob", "quiet now")]


def test_without_a_recorder_the_pause_holds_and_says_that_it_is_not_on_record(
    recorder: Recorder, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.pauses.ANSWER_S", 0.05)
    hands.queue.put("{}", "default", 5, POOL, 1000)
    with pytest.raises(Unavailable, match="tenant:default is paused, but not on record"):
        pause(hands.link, recorder.engine, "tenant:default", "", "ann")
    assert hands.queue.pop(hands.inc, POOL, 1) is None
    drain(recorder)
    assert [each.scope for each in read.pauses(recorder.engine)] == ["tenant:default"]


@pytest.mark.parametrize(
    "scope", ["tenant:nobody", "tenant:Not An Id", "tenant:", "run:00000000000000000000000000", "run:x.y", "fleet", "", "platform:1"]
)
def test_what_there_is_not_cannot_be_paused(recorder: Recorder, hands: Hands, scope: str) -> None:
    with pytest.raises(Unknown, match=r"^there is no [^\n]*$"):
        pause(hands.link, recorder.engine, scope, "", "ann")
    assert hands.link.client.smembers("hg1:paused") == set()


def test_a_run_that_is_over_has_nothing_to_pause_and_its_pause_ends_with_it(recorder: Recorder, hands: Hands) -> None:
    graph = layers(1, 1)
    run, _ = hands.request(graph)
    drain(recorder)
    hands.start(run, graph)
    claimed = hands.begin()
    assert claimed
    assert act(recorder, pause, f"run:{run}")
    assert [each.scope for each in read.pauses(recorder.engine)] == [f"run:{run}.1"]
    hands.finish(*claimed)  # what runs goes on
    drain(recorder)
    assert read.get_run(recorder.engine, run).status == "ended"
    assert read.pauses(recorder.engine) == []
    with pytest.raises(Refused, match="is over"):
        pause(hands.link, recorder.engine, f"run:{run}", "", "ann")


@pytest.mark.parametrize("scope", ["tenant:default", "platform", "run"])
@pytest.mark.parametrize("loses", ["nothing", "the pause", "everything"])
def test_a_pause_survives_a_kill_of_redis_whatever_redis_lost(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, tmp_path: Path, scope: str, loses: str
) -> None:
    graph = layers(2, 2)
    run, _ = hands.request(graph)
    drain(recorder)
    hands.start(run, graph)
    drain(recorder)
    scope = f"run:{run}.1" if scope == "run" else scope
    copy = shutil.copytree(redis_server.directory / "appendonlydir", tmp_path / "copy")
    assert act(recorder, pause, scope)
    redis_server.kill()
    if loses != "nothing":
        shutil.rmtree(redis_server.directory / "appendonlydir")
    if loses == "the pause":
        shutil.copytree(copy, redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    assert hands.link.client.smembers("hg1:paused") == {scope}
    hands.enroll()
    hands.sweep(run)
    assert hands.begin() is None
    assert [each.scope for each in read.pauses(recorder.engine)] == [scope]
    assert act(recorder, resume, scope)
    for _ in range(20):
        hands.sweep(run)
        hands.work()
    drain(recorder)
    assert read.get_run(recorder.engine, run).outcome == "succeeded"
    with recorder.engine.connect() as connection:
        assert connection.execute(select(t.incident)).all() == []


@pytest.mark.parametrize("scope", ["tenant:default", "platform", "run"])
def test_a_message_that_a_worker_holds_already_does_not_begin_once_it_is_paused(recorder: Recorder, hands: Hands, scope: str) -> None:
    run, _ = hands.request(layers(1, 1))
    drain(recorder)
    hands.start(run, layers(1, 1))
    delivery = hands.queue.pop(hands.inc, POOL, 1)
    assert delivery is not None
    scope = f"run:{run}" if scope == "run" else scope
    assert act(recorder, pause, scope)
    assert hands.state.begin(run, 1, "n0.0", hands.inc, delivery.tag, delivery.number, "w") == ["later", 0]
    assert hands.begin() is None
    assert act(recorder, resume, scope)
    claimed = hands.begin()
    assert claimed is not None
    assert claimed[2] == 1


def test_the_end_of_a_pause_survives_a_rollback_to_the_time_of_the_pause(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, tmp_path: Path
) -> None:
    assert act(recorder, pause, "platform")
    copy = shutil.copytree(redis_server.directory / "appendonlydir", tmp_path / "copy")
    assert act(recorder, resume, "platform")
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    shutil.copytree(copy, redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    assert hands.link.client.smembers("hg1:paused") == set()


def test_a_pause_survives_the_kill_of_a_recorder_that_had_not_recorded_it(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, settings: Settings
) -> None:
    hands.queue.pause("tenant:default", "ann", "too loud")  # the recorder dies here
    redis_server.kill()
    redis_server.start()
    process = subprocess.Popen([sys.executable, "-m", "orchestrator.recorder"], env={**_environment(settings)}, stderr=subprocess.DEVNULL)
    try:
        engine = open_engine(settings.resolved_database_url())
        until(lambda: read.pauses(engine))
    finally:
        process.kill()
        process.wait()
    assert [(each.scope, each.by) for each in read.pauses(engine)] == [("tenant:default", "ann")]


def _environment(settings: Settings) -> dict[str, str]:

    return {**os.environ, **settings.environment(), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


# -- with real workers -------------------------------------------------------------------------------------------------------


def sleeps(count: int, seconds: float) -> Graph:
    nodes: list[Any] = [{"id": f"n{at}", "task": "synthetic.sleep", "params": {"seconds": seconds}} for at in range(count)]
    return Graph.parse({"name": "sleeps", "nodes": nodes})


def begun(client: Client, run_id: str) -> int:
    return sum(event.type == "node.began" for event in read.get_events(client.engine, run_id))


@pytest.mark.parametrize("kind", ["platform", "tenant", "run"])
def test_nothing_begins_on_real_workers_once_a_pause_is_acknowledged(stack: Running, kind: str) -> None:
    client, tenant = stack.client, f"paused-{kind}"
    client.tenants.create(tenant)
    run = client.submit(sleeps(40, 0.02), tenant=tenant)
    until(lambda: begun(client, run.run_id) > 3)
    scope = {"platform": "platform", "tenant": f"tenant:{tenant}", "run": f"run:{run.run_id}"}[kind]
    assert client.pause(scope, reason="a look")
    try:
        # What was popped before the pause may still begin; then nothing more does, with all slots idle.
        until(lambda: stack.redis.scard(f"hg1:held:tenant:{tenant}") == 0)
        at_rest = len([event for event in run.events if event["t"] == "node.began"])
        other = None if kind == "platform" else client.submit(sleeps(4, 0.01))
        if other is not None:
            assert other.wait(TIMEOUT_S).outcome == "succeeded"
        assert stack.redis.scard(f"hg1:held:tenant:{tenant}") == 0
        assert at_rest < 40
        assert run.status == "running"
    finally:
        assert client.resume(scope)
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    assert client.tenants.history(tenant)[0].action == "tenant.created"
