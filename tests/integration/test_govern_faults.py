"""The cost agent that dies, comes twice, or finds Redis rebuilt: one decision, whole after the next pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from orchestrator.assembly import HeadgateApp
from orchestrator.govern import Governor
from orchestrator.graph import Graph
from orchestrator.recorder import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.store.decisions import list_decisions
from tenancy.errors import Unavailable
from tests.integration.hands import Hands, drain

DRAFTS, EXTRAS = 300, 250


@pytest.fixture
def run(recorder: Recorder, hands: Hands) -> str:
    """A run whose first node has used so much that what is pending does not fit."""
    drain(recorder)
    change = {"changes": {"limit_per_day_micros": 1_000_000}, "tenant": "default", "reason": "a test", "by": "alice", "version": None}
    append_request(hands.link, "request.policy", change)
    drain(recorder)
    cheap = {"name": "cheap", "kind": "generation", "params": {"inputs": []}, "estimate": {"llm": 50}, "value": 1}
    task = {"task": "synthetic.noop", "after": ["first"]}
    nodes: list[dict[str, Any]] = [{"id": "first", "task": "synthetic.noop", "estimate": {"llm": 400_000}}]
    nodes += [{"id": f"d{n}", **task, "value": 3, "estimate": {"llm": 500}, "variants": [cheap]} for n in range(DRAFTS)]
    nodes += [{"id": f"e{n}", **task, "required": False, "estimate": {"llm": 400}} for n in range(EXTRAS)]
    graph = Graph.parse({"name": "faults", "nodes": nodes})
    found, _ = hands.request(graph)
    drain(recorder)
    hands.start(found, graph)
    claimed = hands.begin()
    assert claimed is not None
    assert hands.state.extend(found, 1, "first", 1, hands.inc, "llm=960000")[0] == "ok"
    drain(recorder)
    return found


def decisions(recorder: Recorder, run: str) -> list[tuple[int, str, bool]]:
    """Those that change something; that the next one says to go on is a decision too."""
    drain(recorder)
    made = list_decisions(recorder.engine, run=run)
    return [(each.number, each.action, each.applied_at is not None) for each in made if each.action != "continue"]


def given_up(client: redis.Redis, run: str) -> tuple[dict[str, str], int]:
    """The verdicts, and how many nodes were skipped."""
    states = client.hvals(f"hg1:state:{run}.1")
    return client.hgetall(f"hg1:verdict:{run}.1"), states.count("skipped")


def governor(app: HeadgateApp, recorder: Recorder) -> Governor:
    return Governor(app.headgate_kernel, recorder.engine)


def test_many_agents_at_once_make_one_decision(app: HeadgateApp, recorder: Recorder, client: redis.Redis, run: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        passes = [pool.submit(governor(app, recorder).tick, f"{run}.1", "beat") for _ in range(6)]
        for each in passes:
            each.result()
    assert decisions(recorder, run) == [(1, "degrade", True)]
    judged = [json.loads(entry["e"]) for _, entry in client.xrange("hg1:events")]
    named = [node for event in judged if event["t"] == "node.judged" for node in event["nodes"]]
    assert len(named) == len(set(named)) > 0
    verdicts, skipped = given_up(client, run)
    assert set(verdicts) == set(named)
    assert skipped > 0
    pending = client.hgetall(f"hg1:purse:{run}.1")
    assert int(pending["needed"]) <= int(pending["hold"])


@pytest.mark.parametrize(("script", "call"), [("skip", 0), ("skip", 1), ("judge", 0), ("judge", 1), ("conclude", 0)])
def test_what_an_agent_that_died_left_half_applied_the_next_pass_completes(
    app: HeadgateApp, recorder: Recorder, client: redis.Redis, run: str, monkeypatch: pytest.MonkeyPatch, script: str, call: int
) -> None:
    state = app.headgate_kernel.state
    alive: Callable[..., Any] = getattr(state, script)
    calls = iter(range(1_000))

    def dies(*args: Any, **more: Any) -> Any:
        if next(calls) == call:
            raise Unavailable("killed here")
        return alive(*args, **more)

    monkeypatch.setattr(state, script, dies)
    with pytest.raises(Unavailable):
        governor(app, recorder).tick()
    monkeypatch.undo()
    assert decisions(recorder, run) == [(1, "degrade", False)]
    assert governor(app, recorder).tick().completed == 1
    assert decisions(recorder, run) == [(1, "degrade", True)]
    before = given_up(client, run), client.hgetall(f"hg1:purse:{run}.1")
    governor(app, recorder).tick()
    assert (given_up(client, run), client.hgetall(f"hg1:purse:{run}.1")) == before
    assert before[0][1] > 0
    assert before[0][0]


def test_a_decision_survives_the_loss_of_redis_and_a_half_applied_one_is_made_again(
    app: HeadgateApp, recorder: Recorder, hands: Hands, client: redis.Redis, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = app.headgate_kernel.state

    def killed(*_args: Any, **_more: Any) -> Any:
        raise Unavailable("killed here")

    monkeypatch.setattr(state, "judge", killed)
    with pytest.raises(Unavailable):
        governor(app, recorder).tick()
    monkeypatch.undo()
    drain(recorder)
    _, skipped = given_up(client, run)
    client.flushall()
    recorder.prepare()
    hands.enroll()
    assert given_up(client, run) == ({}, skipped)
    assert client.hget(f"hg1:decision:{run}.1", "n") == "1"
    # The lost epoch's open executions are void: their money is there again, and nothing has to be given up.
    governor(app, recorder).tick()
    drain(recorder)
    assert not client.hexists(f"hg1:decision:{run}.1", "open")


def test_verdicts_and_the_count_of_decisions_are_there_after_a_rebuild(
    app: HeadgateApp, recorder: Recorder, client: redis.Redis, run: str
) -> None:
    governor(app, recorder).tick()
    drain(recorder)
    before = given_up(client, run)
    client.flushall()
    recorder.prepare()
    assert given_up(client, run) == before
    kept = client.hgetall(f"hg1:decision:{run}.1")
    assert (kept["n"], json.loads(kept["last"])["action"]) == ("1", "degrade")
    assert json.loads(kept["last"])["basis"]
    assert decisions(recorder, run) == [(1, "degrade", True)]


def test_the_agent_that_is_paused_decides_nothing(app: HeadgateApp, recorder: Recorder, client: redis.Redis, run: str) -> None:
    client.sadd("hg1:paused", "agent")
    assert vars(governor(app, recorder).tick()) == {"decided": 0, "completed": 0}
    client.srem("hg1:paused", "agent")
    assert governor(app, recorder).tick().decided == 1
