"""A run that is paused gives its place up, and in time what it holds: through a rebuild from the record, and when nobody came to do it."""

from __future__ import annotations

import pytest
import redis

from orchestrator.assembly import HeadgateApp
from orchestrator.auditor import Auditor
from orchestrator.govern.survey import live_runs
from orchestrator.pauses import pause, resume
from orchestrator.recorder.ask import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.state import State
from orchestrator.sweeper import Sweeper
from tests.integration.hands import Hands, drain, layers
from tests.integration.test_pauses import recording


@pytest.fixture
def run(recorder: Recorder, hands: Hands) -> str:
    """One of four nodes, one of them optional, that holds 4,000 micros, of which 3,000 are needed."""
    drain(recorder)
    graph = layers(2, 2)
    found, _ = hands.request(graph)
    drain(recorder)
    hands.start(found, graph)
    drain(recorder)
    return found


def of_tenant(client: redis.Redis) -> tuple[str, str]:
    """What the tenant's runs hold, and how many have a place."""
    held, running = client.hmget("hg1:tenant:default", "held", "running")
    return str(held), str(running)


def lose_all(client: redis.Redis, recorder: Recorder) -> None:
    drain(recorder)
    client.flushall()
    recorder.prepare()


def counters_agree(recorder: Recorder) -> bool:
    with recording(recorder):
        return Auditor(recorder.link, recorder.engine, 60.0).audit("default") == []


def test_a_pause_frees_the_place_and_after_a_day_the_hold_and_both_survive_the_loss_of_redis(
    app: HeadgateApp, recorder: Recorder, client: redis.Redis, run: str
) -> None:
    state = State(recorder.link)
    before = of_tenant(client)
    with recording(recorder):
        assert pause(recorder.link, recorder.engine, f"run:{run}", "lunch", "ann")
    assert of_tenant(client) == (before[0], "0")
    lose_all(client, recorder)
    assert of_tenant(client) == (before[0], "0")
    assert counters_agree(recorder)

    assert Sweeper(app.headgate_kernel, recorder.engine).sweep().stood_by == 0, "a day has not passed"
    assert of_tenant(client) == (before[0], "0")
    assert state.stand_by(run, 1, 0) == "lapsed"
    assert of_tenant(client) == ("0", "0")
    assert not live_runs(recorder.link)[f"{run}.1"].decidable, "the agent leaves it alone"
    lose_all(client, recorder)
    assert of_tenant(client) == ("0", "0")
    assert client.hget(f"hg1:purse:{run}.1", "lapsed") == "1"
    assert counters_agree(recorder)

    with recording(recorder):
        assert resume(recorder.link, recorder.engine, f"run:{run}", "", "ann")
    needed = client.hget(f"hg1:purse:{run}.1", "needed")
    assert needed != "0"
    assert of_tenant(client) == (needed, "1")
    assert live_runs(recorder.link)[f"{run}.1"].decidable
    lose_all(client, recorder)
    assert of_tenant(client) == (needed, "1")
    assert counters_agree(recorder)


def test_the_sweep_does_what_whoever_paused_or_resumed_died_before(
    app: HeadgateApp, recorder: Recorder, hands: Hands, client: redis.Redis, run: str
) -> None:
    drain(recorder)
    sweeper = Sweeper(app.headgate_kernel, recorder.engine)
    hands.queue.pause(f"run:{run}.1", "ann", "lunch")
    assert sweeper.sweep().stood_by == 1
    assert of_tenant(client)[1] == "0"
    assert sweeper.sweep().stood_by == 0
    hands.queue.resume(f"run:{run}.1", "ann", "")
    assert sweeper.sweep().stood_by == 1
    assert of_tenant(client)[1] == "1"
    hands.queue.pause(f"run:{run}.1", "ann", "once more")
    assert sweeper.sweep().stood_by == 1
    hands.state.cancel(run, 1, "enough", "ann")
    sweeper.sweep()
    assert client.hget(f"hg1:run:{run}.1", "status") == "ended"
    assert of_tenant(client) == ("0", "0")
    assert not client.exists("hg1:away")


def test_another_run_of_the_tenant_has_the_place_of_one_that_is_paused(
    app: HeadgateApp, recorder: Recorder, hands: Hands, client: redis.Redis, run: str
) -> None:
    change = {"changes": {"max_concurrent_runs": 1}, "tenant": "default", "reason": "a test", "by": "alice", "version": None}
    append_request(hands.link, "request.policy", change)
    drain(recorder)
    second, _ = hands.request(layers(1, 1))
    drain(recorder)
    sweeper = Sweeper(app.headgate_kernel, recorder.engine)
    sweeper.admission.start(second, 1)
    assert client.hget(f"hg1:run:{second}.1", "status") == "held"
    hands.queue.pause(f"run:{run}.1", "ann", "lunch")
    assert sweeper.sweep().admitted == 1
    assert client.hget(f"hg1:run:{second}.1", "status") == "running"
