from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from orchestrator.embedded import RedisServer
from orchestrator.pauses import on_record
from orchestrator.recorder import append_request, await_answer, loop
from orchestrator.recorder.loop import Recorder
from orchestrator.recorder.stream import trim
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import open_engine
from orchestrator.store.position import Position
from orchestrator.store.read import get_events, get_nodes, get_run, get_tenant, recorded, run_cost, show_json, tenants
from tenancy.errors import Unavailable
from tenancy.link import Link
from tests.integration.hands import Hands, drain, layers, make_recorder

pytestmark = pytest.mark.both_records


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = 90.0) -> None:
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def rows(settings: Settings, table: Any) -> list[dict[str, Any]]:
    with open_engine(settings.resolved_database_url()).connect() as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()]


def test_the_first_start_opens_epoch_one_and_makes_the_tenant_default(recorder: Recorder, settings: Settings) -> None:
    drain(recorder)
    link = recorder.link
    assert link.client.hmget("hg1:epoch", ["epoch", "server", "seq"]) == ["1", link.server_id(), "1"]
    assert link.client.hgetall("hg1:tenant:default") == {
        "degrade_budget": "90",
        "degrade_concurrency": "80",
        "limit_day": "1000000000",
        "limit_month": "",
        "max_runs": "10",
        "max_waiting_runs": "1000",
        "submissions_per_minute": "",
        "max_running_nodes": "",
        "weight": "1",
        "pool": "",
        "default_priority": "NORMAL",
        "on_floor": "terminate",
        "on_runs_limit": "hold",
        "on_budget_limit": "reject",
        "warn": "80",
        "critical": "90",
        "exceeded": "100",
        "on_warning": "notify",
        "on_critical": "notify",
        "on_exceeded": "notify",
        "admit": "floor",
        "enforcement": "enforce",
        "strict": "0",
        "currency": "EUR",
        "status": "active",
        "version": "1",
    }
    assert [tenant.id for tenant in tenants(recorder.engine)] == ["default"]
    assert recorded(recorder.engine) == (1, 1)
    assert link.client.get("hg1:recorded") == "1-1"


def test_a_run_is_on_record_as_it_was_in_redis(recorder: Recorder, hands: Hands, settings: Settings) -> None:
    graph = layers(3, 3)
    run, request = hands.request(graph, key="order-1", labels={"team": "x"}, budget=2**53 - 1)
    drain(recorder)
    assert await_answer(hands.link, request, 1) == {"status": "accepted", "run": run}
    assert hands.link.client.exists(f"hg1:payload:{request}") == 0
    pending = show_json(recorder.engine, run)
    assert [(node["id"], node["state"], node["attempt"]) for node in pending["nodes"]] == [(node.id, "pending", 0) for node in graph.nodes]
    assert (get_run(recorder.engine, run).budget, get_run(recorder.engine, run).labels) == (2**53 - 1, {"team": "x"})

    hands.start(run, graph)
    assert hands.work() == 9
    drain(recorder)
    shown = show_json(recorder.engine, run)
    assert (shown["status"], shown["outcome"], shown["tenant"]) == ("ended", "succeeded", "default")
    day = hands.link.client.keys("hg1:spent:default:[0-9]*")[0]
    spent = {k.removeprefix("c:"): int(v) for k, v in hands.link.client.hgetall(day).items()}
    assert shown["cost"] == {"compute": spent["compute"], "llm": spent["llm"]} == run_cost(recorder.engine, run)
    assert shown["cost_micros"] == spent["settled"] == sum(node["cost_micros"] for node in shown["nodes"])
    for node in shown["nodes"]:
        assert node["queued_at"] <= node["started_at"] <= node["finished_at"]
        assert (node["outcome"], node["attempt"], node["worker"]) == ("succeeded", 1, "w")
    layer = {node["id"]: node for node in shown["nodes"]}
    assert layer["n1.0"]["started_at"] >= max(layer[f"n0.{column}"]["finished_at"] for column in range(3))
    assert [event.type for event in get_events(recorder.engine, run)][-1] == "run.ended"
    assert rows(settings, t.incident) == []


def test_a_key_names_one_graph_of_its_tenant(recorder: Recorder, hands: Hands) -> None:
    first, one = hands.request(layers(1, 1), key="k")
    _, again = hands.request(layers(1, 1), key="k")
    _, other = hands.request(layers(1, 2), key="k")
    drain(recorder)
    assert await_answer(hands.link, one, 1) == {"status": "accepted", "run": first}
    assert await_answer(hands.link, again, 1) == {"status": "duplicate", "run": first}
    assert await_answer(hands.link, other, 1) == {"status": "conflict", "run": first}


def test_a_request_that_is_sent_twice_is_done_once_and_answered_twice(recorder: Recorder, hands: Hands, settings: Settings) -> None:
    run, request = hands.request(layers(1, 1))
    drain(recorder)
    assert await_answer(hands.link, request, 1) == {"status": "accepted", "run": run}
    hands.request(layers(1, 1), run=run, request=request)
    drain(recorder)
    assert await_answer(hands.link, request, 1) == {"status": "accepted", "run": run}
    assert len(rows(settings, t.run)) == 1


def test_an_unknown_tenant_a_suspended_one_and_a_lost_graph_are_told_and_store_nothing(
    recorder: Recorder, hands: Hands, settings: Settings
) -> None:
    _, unknown = hands.request(layers(1, 1), tenant="nobody")
    _, lost = hands.request(layers(1, 1))
    hands.link.client.delete(f"hg1:payload:{lost}")
    drain(recorder)
    assert (await_answer(hands.link, unknown, 1) or {})["status"] == "unknown_tenant"
    assert (await_answer(hands.link, lost, 1) or {})["status"] == "lost"
    with recorder.engine.begin() as connection:
        connection.execute(update(t.tenant).values(status="suspended"))
    _, suspended = hands.request(layers(1, 1))
    drain(recorder)
    assert (await_answer(hands.link, suspended, 1) or {})["status"] == "suspended"
    assert rows(settings, t.run) == []


def test_a_tenant_may_run_as_soon_as_its_creation_is_answered(recorder: Recorder, hands: Hands) -> None:
    policy = {"limit_per_day_micros": 2**53 - 1, "max_concurrent_runs": 2}
    request = append_request(hands.link, "request.tenant", {"tenant": "acme", "name": "Acme", "policy": policy})
    twice = append_request(hands.link, "request.tenant", {"tenant": "acme", "policy": {}})
    bad = append_request(hands.link, "request.tenant", {"tenant": "acme2", "policy": {"weight": 0, "colour": "red"}})
    drain(recorder)
    assert await_answer(hands.link, request, 1) == {"status": "accepted", "tenant": "acme"}
    assert hands.link.client.hgetall("hg1:tenant:acme")["limit_day"] == str(2**53 - 1)
    assert await_answer(hands.link, twice, 1) == {"status": "duplicate", "tenant": "acme"}
    refused = await_answer(hands.link, bad, 1) or {}
    assert refused["status"] == "invalid"
    assert "weight" in refused["reason"]
    assert "colour" in refused["reason"]
    assert get_tenant(recorder.engine, "acme").policy.max_concurrent_runs == 2


def test_the_key_of_a_refused_run_may_be_tried_again(recorder: Recorder, hands: Hands) -> None:
    graph = layers(1, 1)
    first, _ = hands.request(graph, key="k")
    want = {"graph": "layers", "total": 1, "estimate": str(10**12), "floor": str(10**12), "budget": "", "priority": 5}
    assert hands.state.admit(first, 1, "default", want)[0] == "refused"
    second, request = hands.request(graph, key="k")
    drain(recorder)
    assert await_answer(hands.link, request, 1) == {"status": "accepted", "run": second}
    assert (get_run(recorder.engine, first).status, get_run(recorder.engine, first).reason) == ("refused", "budget")


def test_an_answer_that_a_crash_kept_back_is_given_by_the_next_recorder(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, request = hands.request(layers(1, 1))

    class Died(Exception):
        pass

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.recorder.loop.announce", die)
        with pytest.raises(Died):
            drain(recorder)
    make_recorder(redis_server, settings)
    assert await_answer(hands.link, request, 1) == {"status": "accepted", "run": run}


def test_the_end_of_a_run_is_announced_after_it_is_on_record(recorder: Recorder, hands: Hands) -> None:
    graph = layers(2, 1)
    run, _ = hands.request(graph)
    drain(recorder)
    with hands.link.client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe("hg1:ended")
        hands.start(run, graph)
        hands.work()
        drain(recorder)
        found: list[dict[str, Any]] = []
        eventually(lambda: bool(found.append(m) or True) if (m := listener.get_message(timeout=0.1)) else False, "an announcement")
    assert found[0]["data"] == run
    assert get_run(recorder.engine, run).outcome == "succeeded"


def test_two_recorders_at_once_apply_every_event_once(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, settings: Settings
) -> None:
    other = make_recorder(redis_server, settings)
    graph = layers(4, 4)
    run, _ = hands.request(graph)
    drain(recorder)
    hands.start(run, graph)
    hands.work()
    news = [0, 0]
    threads = [threading.Thread(target=lambda at=at, r=r: news.__setitem__(at, _all(r))) for at, r in enumerate((recorder, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(news) + 2 == hands.link.client.xlen("hg1:events") - 1
    assert get_run(recorder.engine, run).cost_micros == sum(run_cost(recorder.engine, run).values())
    assert rows(settings, t.incident) == []


def test_a_recorder_that_waits_for_more_to_commit_goes_on_at_once_for_a_request_and_for_the_end_of_a_run(
    recorder: Recorder, hands: Hands, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LINGER_S", 600.0)
    writer = Recorder(Link(hands.link.url), recorder.engine, settings)
    stop = threading.Event()
    thread = threading.Thread(target=writer.run, args=(stop,))
    thread.start()
    try:
        graph = layers(1, 2)
        run, request = hands.request(graph)
        assert (await_answer(hands.link, request, 30.0) or {}).get("status") == "accepted"
        hands.start(run, graph)
        hands.work()
        eventually(lambda: get_run(recorder.engine, run).status == "ended", "the end of the run is on record")
        assert on_record(hands.link, "it is paused", lambda: bool(hands.queue.pause(f"run:{run}.1", "alice", "why not")))
    finally:
        stop.set()
        hands.link.client.lpush("hg1:hurry", "1")
        thread.join(30)
    assert not thread.is_alive()


def _all(recorder: Recorder) -> int:
    total = 0
    while new := recorder.step(None):
        total += new
    return total


def test_old_entries_leave_the_stream_and_what_is_not_recorded_stays(recorder: Recorder, hands: Hands) -> None:
    client = hands.link.client
    with client.pipeline(transaction=False) as pipe:
        for seq in range(3, 5003):
            pipe.xadd("hg1:events", {"e": json.dumps({"t": "x", "at": seq})}, id=f"1-{seq}")
        pipe.execute()
    assert trim(client, Position(1, 3500), before_ms=4500) == 3400
    assert trim(client, Position(1, 5002), before_ms=4500) == 1000
    assert trim(client, Position(1, 5002), before_ms=4500) == 0
    assert client.xrange("hg1:events", count=1)[0][0] == "1-4401"


def test_a_reader_is_told_when_there_is_no_record_and_may_not_write(tmp_path: Path, settings: Settings, recorder: Recorder) -> None:
    with pytest.raises(Unavailable, match="made when the recorder first starts"):
        tenants(open_engine(f"sqlite:///{tmp_path}/nothing.db"))
    with pytest.raises(Exception, match=r"read-?only"), open_engine(settings.resolved_database_url()).begin() as connection:
        connection.execute(update(t.tenant).values(status="closed"))


def test_a_locked_database_delays_the_record_and_loses_nothing(
    redis_server: RedisServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.store.engine.BUSY_TIMEOUT_MS", 50)
    recorder = make_recorder(redis_server, settings)
    hands = Hands(redis_server, settings)
    run, request = hands.request(layers(1, 1))
    blocker = open_engine(settings.resolved_database_url(), writer=True)
    with blocker.begin(), pytest.raises(OperationalError, match=r"locked|lock timeout"):
        recorder.step(None)
    drain(recorder)
    assert await_answer(hands.link, request, 1) == {"status": "accepted", "run": run}
    assert rows(settings, t.incident) == []


class Process:
    """`python -m orchestrator.recorder`, killed and started again."""

    def __init__(self, settings: Settings) -> None:
        environment = {**os.environ, **settings.environment(), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        self.argv = [sys.executable, "-m", "orchestrator.recorder"]
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.argv, env=self.environment, stderr=subprocess.DEVNULL)

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)


def test_a_recorder_that_is_killed_at_random_points_applies_nothing_twice_and_nothing_less(
    redis_server: RedisServer, settings: Settings
) -> None:
    """The load goes on while the recorder dies, from within start, recovery, transaction or announcement."""
    process = Process(settings)
    process.start()
    link = Link(redis_server.client_url)
    dice = random.Random(7)
    try:
        eventually(lambda: bool(link.client.exists("hg1:tenant:default")), "the first start")
        hands = Hands(redis_server, settings, seed=3)
        hands.enroll()
        graph = layers(5, 8)
        runs = []
        for _ in range(6):
            run, request = hands.request(graph)
            worker = threading.Timer(dice.uniform(0.0, 0.8), process.end, [signal.SIGKILL])
            worker.start()
            hands.link.client.hset("hg1:tenant:default", "max_runs", "100")
            hands.start(run, graph)
            hands.work(fail=0.1)
            runs.append((run, request))
            worker.join()
            link.client.delete("hg1:recorder")  # or wait 3 s for the dead one's lease
            process.start()
        last = Position.parse(str(link.client.xrevrange("hg1:events", count=1)[0][0]))
        engine = open_engine(settings.resolved_database_url())
        eventually(lambda: recorded(engine) >= last, "the rest is recorded")
        for _, request in runs:
            assert (await_answer(link, request, 10) or {})["status"] == "accepted"
        assert process.end(signal.SIGTERM) == 0
    finally:
        if process.process is not None and process.process.poll() is None:
            process.end(signal.SIGKILL)

    stream = [(Position.parse(identity), fields["e"]) for identity, fields in link.client.xrange("hg1:events")]
    assert [(Position(row["epoch"], row["seq"]), row["data"]) for row in rows(settings, t.event)] == stream
    assert rows(settings, t.incident) == []
    spent = [link.client.hgetall(key) for key in link.client.keys("hg1:spent:default:[0-9]*")]
    charged = [row for row in rows(settings, t.ledger) if row["kind"] in ("settle", "waste")]
    assert sum(int(day["settled"]) for day in spent) == sum(row["amount"] for row in charged)
    for run, _ in runs:
        view = get_run(engine, run)
        assert view.status == "ended"
        assert view.cost_micros == int(str(link.client.hget(f"hg1:purse:{run}.1", "spent")))
        outcomes = link.client.hgetall(f"hg1:state:{run}.1")
        assert {node.id: node.outcome for node in get_nodes(engine, run)} == outcomes


def test_a_second_recorder_stands_by_and_goes_on_when_the_first_leaves(redis_server: RedisServer, settings: Settings) -> None:
    first, second = Process(settings), Process(settings)
    link = Link(redis_server.client_url)
    first.start()
    try:
        eventually(lambda: bool(link.client.exists("hg1:tenant:default")), "the first start")
        holder = link.client.get("hg1:recorder")
        second.start()
        assert first.end(signal.SIGTERM) == 0
        eventually(lambda: link.client.get("hg1:recorder") not in (None, holder), "the second one holds the lease")
        request = append_request(link, "request.tenant", {"tenant": "acme", "policy": {}})
        assert await_answer(link, request, 10) == {"status": "accepted", "tenant": "acme"}
    finally:
        second.end(signal.SIGTERM)
        if first.process is not None and first.process.poll() is None:
            first.end(signal.SIGKILL)
    assert rows(settings, t.incident) == []


def test_a_recorder_outlives_its_redis_and_opens_the_next_epoch(redis_server: RedisServer, settings: Settings) -> None:
    process = Process(settings)
    link = Link(redis_server.client_url)
    process.start()
    try:
        eventually(lambda: bool(link.client.exists("hg1:tenant:default")), "the first start")
        redis_server.kill()
        redis_server.start()
        link = Link(redis_server.client_url)
        eventually(lambda: link.client.hmget("hg1:epoch", ["epoch", "server"]) == ["2", link.server_id()], "the next epoch")
        request = append_request(link, "request.tenant", {"tenant": "acme", "policy": {}})
        assert await_answer(link, request, 10) == {"status": "accepted", "tenant": "acme"}
        assert process.end(signal.SIGTERM) == 0
    finally:
        if process.process is not None and process.process.poll() is None:
            process.end(signal.SIGKILL)
    assert rows(settings, t.incident) == []
