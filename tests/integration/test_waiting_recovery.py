"""What waits to be admitted survives the loss of Redis, in its order; so do caps of runs and counts of backpressure."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from orchestrator.embedded import RedisServer
from orchestrator.recorder import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store.read import get_run
from orchestrator.submission import Submission
from tests.integration.hands import Hands, drain, layers

pytestmark = pytest.mark.both_records

GRAPH = layers(2, 1)


@pytest.fixture
def hands(redis_server: RedisServer, settings: Settings, recorder: Recorder) -> Hands:
    hands = Hands(redis_server, settings)
    hands.enroll()
    append_request(hands.link, "request.tenant", {"tenant": "acme", "name": "Acme", "policy": {"max_concurrent_runs": 1}})
    drain(recorder)
    return hands


def submit(recorder: Recorder, hands: Hands, **fields: Any) -> tuple[str, list[Any]]:
    graph = GRAPH.evolve(**fields)
    run, _ = hands.request(graph, "acme")
    drain(recorder)
    reply = hands.state.admit(run, 1, "acme", Submission.of(graph, hands.settings).want(None))
    drain(recorder)
    return run, reply


def lose_everything(server: RedisServer, recorder: Recorder) -> None:
    server.kill()
    shutil.rmtree(server.directory / "appendonlydir")
    server.start()
    recorder.prepare()


def test_runs_that_wait_are_rebuilt_in_their_order_and_let_in_in_it(recorder: Recorder, hands: Hands, redis_server: RedisServer) -> None:
    first, reply = submit(recorder, hands, max_parallel=1)
    assert reply[0] == "admitted"
    waiting = []
    for _ in range(4):
        run, reply = submit(recorder, hands)
        assert reply == ["held", "runs", 0]
        waiting.append(run)
    assert {get_run(recorder.engine, run).status for run in waiting} == {"held"}
    client = hands.link.client
    wants = [json.loads(str(client.hget(f"hg1:run:{run}.1", "want"))) for run in waiting]

    lose_everything(redis_server, recorder)
    assert client.zrange("hg1:line:acme", 0, -1) == [f"{run}.1" for run in waiting]
    assert client.zrange("hg1:waiting", 0, -1) == ["acme"]
    assert client.hgetall("hg1:caps") == {f"{first}.1": "1"}
    assert client.hgetall("hg1:loading") == {"default": "2"}
    assert [json.loads(str(client.hget(f"hg1:run:{run}.1", "want"))) for run in waiting] == wants
    assert client.hmget("hg1:tenant:acme", "running", "held") == ["1", "2000"]

    hands.enroll()
    late, reply = submit(recorder, hands)
    assert reply == ["held", "runs", 0]
    hands.start(first, GRAPH.evolve(max_parallel=1), "acme")
    for run in [*waiting, late]:
        assert hands.state.let_in(20) == [0]
        hands.work()
        assert hands.state.let_in(20) == [0, f"{run}.1"]
        hands.start(run, GRAPH, "acme")
    hands.work()
    drain(recorder)
    assert {get_run(recorder.engine, run).outcome for run in (first, *waiting, late)} == {"succeeded"}
    assert client.hmget("hg1:tenant:acme", "running", "held") == ["0", "0"]
    assert not client.exists("hg1:caps", "hg1:loading", "hg1:waiting")


def test_a_run_that_was_cancelled_while_it_waited_ends_after_a_rebuild_too(
    recorder: Recorder, hands: Hands, redis_server: RedisServer
) -> None:
    submit(recorder, hands)
    run, _ = submit(recorder, hands)
    hands.state.cancel(run, 1, "enough", "ann")
    drain(recorder)
    lose_everything(redis_server, recorder)
    client = hands.link.client
    assert client.hget(f"hg1:run:{run}.1", "status") == "cancelling"
    assert not client.exists("hg1:line:acme", f"hg1:purse:{run}.1")
    assert client.hget("hg1:tenant:acme", "running") == "1", "it takes no place"
    hands.state.revoke(run, 1, "cancelled", "enough", list(client.hkeys(f"hg1:state:{run}.1")))
    drain(recorder)
    assert get_run(recorder.engine, run).outcome == "cancelled"
    assert client.hget("hg1:tenant:acme", "running") == "1"


def test_counts_and_times_of_backpressure_survive_a_rebuild(recorder: Recorder, hands: Hands, redis_server: RedisServer) -> None:
    hands.queue.retire(hands.inc)
    run, reply = submit(recorder, hands)
    assert reply == ["held", "worker", 0]
    hands.enroll()
    assert hands.state.let_in(20) == [0, f"{run}.1"]
    drain(recorder)
    before = hands.link.client.hgetall("hg1:pressure:default")
    assert (before["state"], before["parked"]) == ("open", "1")
    lose_everything(redis_server, recorder)
    assert hands.link.client.hgetall("hg1:pressure:default") == before
