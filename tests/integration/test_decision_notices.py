"""Decisions of the cost agent are told like levels: by HTTP on loopback, once, also where the tenant is only observed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from test_notify import SECRET, TOLD, Endpoint

from orchestrator.assembly import HeadgateApp
from orchestrator.govern import Governor
from orchestrator.graph import Graph
from orchestrator.notify import Notifier
from orchestrator.recorder import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from tests.integration.hands import Hands, drain


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    opened = Endpoint()
    yield opened
    opened.close()


GRAPH = [
    {"id": "first", "task": "synthetic.noop", "estimate": {"llm": 400_000}},
    {"id": "extra", "task": "synthetic.noop", "required": False, "after": ["first"], "estimate": {"llm": 300_000}},
]


@pytest.mark.parametrize("enforcement", ["enforce", "observe"])
def test_a_decision_is_told_once_and_says_whether_it_was_only_observed(
    app: HeadgateApp, recorder: Recorder, hands: Hands, settings: Settings, endpoint: Endpoint, enforcement: str
) -> None:
    TOLD.clear()
    drain(recorder)
    policy = {"limit_per_day_micros": 1_000_000, "webhook": endpoint.url, "enforcement": enforcement}
    change = {"changes": policy, "tenant": "default", "reason": "a test", "by": "alice", "version": None}
    append_request(hands.link, "request.policy", change)
    drain(recorder)
    graph = Graph.parse({"name": "told", "nodes": GRAPH})
    run, _ = hands.request(graph)
    drain(recorder)
    hands.start(run, graph)
    assert hands.begin() is not None
    assert hands.state.extend(run, 1, "first", 1, hands.inc, "llm=960000")[0] == "ok"
    drain(recorder)
    for _ in range(2):
        Governor(app.headgate_kernel, recorder.engine).tick()
        drain(recorder)
    told = settings.model_copy(update={"webhook_secret": SECRET, "notify": "test_notify:hook"})
    for _ in range(2):
        Notifier(recorder.link, recorder.engine, told, deadline_s=5.0).deliver()
        drain(recorder)
    decision = f"{run}.1.1"
    assert [key for key in endpoint.keys if decision in key] == [f"default.{decision}"]
    (said,) = [payload for payload in TOLD if payload["event"] == "decision.made"]
    wanted: dict[str, Any] = {
        "key": f"default.{decision}",
        "tenant": "default",
        "run": run,
        "generation": 1,
        "decision": decision,
        "trigger": "beat",
        "action": "degrade",
        "changes": 1,
        "saving_micros": 300_000,
        "observed": enforcement == "observe",
    }
    assert wanted.items() <= said.items()
    assert "BUDGET_CRITICAL" in said["flags"]
    skipped = recorder.link.read("HGET", f"hg1:state:{run}.1", "extra") == "skipped"
    assert skipped is (enforcement == "enforce")
    assert json.dumps(said), "it can be sent"
