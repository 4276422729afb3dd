"""A submission is durable, idempotent and refused in one sentence; what is refused leaves nothing behind."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from running import Running, by_id, until
from ulid import ULID
from wire import Wire

from orchestrator import BudgetRefused, Conflict, GraphInvalid, Refused, task
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.registry import registry
from orchestrator.store import read
from orchestrator.submission import Submission

TIMEOUT_S = 20
NOOP = {"id": "a", "task": "synthetic.noop"}


def graph_of(*nodes: Any, name: str = "submitted", **fields: Any) -> Graph:
    return Graph.parse({"name": name, "nodes": list(nodes), **fields})


def spend(node: str, micros: int, **fields: Any) -> dict[str, Any]:
    return {"id": node, "task": "synthetic.spend", "params": {"micros": micros}, "estimate": {"other": micros}, **fields}


def new_key() -> str:
    return str(ULID())


def traces(stack: Running) -> tuple[set[str], set[str]]:
    """The runs on record, and the keys in Redis that name a run, a request or a task; once everything before is over."""
    until(lambda: not stack.redis.exists("hg1:runs") and not list(stack.redis.scan_iter("hg1:unacked:*")))
    runs = {run.run_id for run in read.list_runs(stack.client.engine, limit=10_000)}
    return runs, {key for key in stack.redis.scan_iter("hg1:*", count=1000) if re.search(r"[0-9a-z]{26}", key)}


@contextmanager
def nothing_left(stack: Running) -> Iterator[None]:
    """Nothing is published, recorded or kept in Redis meanwhile; what goes by itself, such as an old answer, may go."""
    runs, kept = traces(stack)
    assert stack.stack.redis is not None
    with Wire(stack.stack.redis.socket) as wire:
        yield
    assert [payload for payload in wire.payloads() if b'"headgate"' in payload] == []
    runs_after, kept_after = traces(stack)
    assert runs_after == runs
    assert kept_after <= kept


# -- keys --------------------------------------------------------------------------------------------------------------------


def test_the_same_key_and_graph_give_the_same_run_and_another_graph_is_a_conflict(stack: Running) -> None:
    key, client = new_key(), stack.client
    first = client.submit(graph_of(NOOP), key=key)
    again = client.submit(graph_of(NOOP), key=key)
    assert again.run_id == first.run_id
    assert first.wait(TIMEOUT_S).outcome == "succeeded"
    assert client.submit(graph_of(NOOP), key=key).run_id == first.run_id
    with nothing_left(stack), pytest.raises(Conflict, match=first.run_id):
        client.submit(graph_of(NOOP, {"id": "b", "task": "synthetic.noop"}), key=key)
    assert client.submit(graph_of(NOOP), key=new_key()).run_id != first.run_id
    assert [node["attempt"] for node in first.nodes] == [1]


# -- money -------------------------------------------------------------------------------------------------------------------


def test_a_budget_below_the_floor_is_refused_with_the_floor_and_nothing_is_published(stack: Running) -> None:
    client = stack.client
    optional = spend("b", 5_000, required=False)
    before = traces(stack)
    with Wire(stack.stack.redis.socket) as wire, pytest.raises(BudgetRefused, match=r"\b30000 micros\b") as refused:  # type: ignore[union-attr]
        client.submit(graph_of(spend("a", 30_000), optional, name="below-its-floor"), budget="0.02")
    assert refused.value.limit == 20_000
    assert list(wire.payloads()) == [] or not any(b'"headgate"' in payload for payload in wire.payloads())
    (run_id,) = {run.run_id for run in read.list_runs(client.engine, graph="below-its-floor")}
    run = client.run(run_id).wait(TIMEOUT_S)
    assert (run.status, run.cost_micros) == ("refused", 0)
    assert [event["t"] for event in run.events] == ["request.submit", "run.refused"]
    assert {node["state"] for node in run.nodes} == {"pending"}
    # The event is the record's; in Redis no key of the run is left.
    assert stack.keys_of(run_id) == []
    assert traces(stack)[1] == before[1]


def test_a_short_budget_is_planned_down_before_the_first_node_starts(stack: Running) -> None:
    cheaper = {"name": "small", "kind": "generation", "params": {"micros": 10_000}, "estimate": {"other": 10_000}, "value": 7}
    graph = graph_of(
        {"id": "root", "task": "synthetic.noop"},
        spend("draft", 30_000, value=10, variants=[cheaper], after=["root"]),
        spend("extra", 20_000, required=False, value=1, after=["root"]),
        {"id": "end", "task": "node_tasks.together", "params": {"parts": [{"$ref": "draft"}], "rest": {"$ref": "extra", "default": None}}},
    )
    run = stack.client.submit(graph, budget=13_000).wait(TIMEOUT_S)
    assert run.outcome == "degraded"
    found = by_id(run)
    assert (found["draft"]["outcome"], found["draft"]["verdict"]) == ("succeeded", "small")
    assert (found["extra"]["outcome"], found["extra"]["attempt"]) == ("skipped", 0)
    assert "budget" in found["extra"]["reason"]
    assert run.result() == [[10_000], None]
    assert run.cost_micros <= 13_000
    kinds = [event["t"] for event in run.events]
    assert kinds.count("decision.applied") == 1
    assert kinds.index("decision.applied") < kinds.index("node.began")
    decision = next(event for event in run.events if event["t"] == "decision.applied")
    assert decision["trigger"] == "admission"
    changes = {(m["node"], m["type"], m["change"]): int(m["saving"]) for m in decision["modifications"]}
    assert changes == {("draft", "generation", "small"): 20_000, ("extra", "skip", "skip"): 20_000}


def test_what_only_waited_for_a_skipped_node_runs_when_the_run_was_planned_down(stack: Running) -> None:
    graph = graph_of(
        spend("extra", 20_000, required=False),
        {"id": "later", "task": "synthetic.noop", "after": ["extra"]},
        {"id": "last", "task": "synthetic.noop", "after": ["later"]},
    )
    run = stack.client.submit(graph, budget=5_000).wait(TIMEOUT_S)
    assert {node["id"]: node["outcome"] for node in run.nodes} == {"extra": "skipped", "later": "succeeded", "last": "succeeded"}
    assert run.outcome == "degraded"


def test_a_tenant_s_day_limit_holds_over_runs(stack: Running) -> None:
    tenant = f"short-{new_key()[-8:].lower()}"
    stack.client.tenants.create(tenant, limit_per_day_micros=50_000)
    first = stack.client.submit(graph_of(spend("a", 30_000)), tenant=tenant).wait(TIMEOUT_S)
    assert first.outcome == "succeeded"
    assert 30_000 <= first.cost_micros < 50_000
    with pytest.raises(BudgetRefused) as refused:
        stack.client.submit(graph_of(spend("a", 30_000)), tenant=tenant)
    assert (refused.value.limit, refused.value.current) == (50_000, first.cost_micros)
    assert "30000 micros" in str(refused.value)
    # What still fits is let in, and other tenants do not notice.
    assert stack.client.submit(graph_of(spend("a", 10_000)), tenant=tenant).wait(TIMEOUT_S).outcome == "succeeded"
    assert stack.client.submit(graph_of(spend("a", 30_000))).wait(TIMEOUT_S).outcome == "succeeded"


# -- refusals ----------------------------------------------------------------------------------------------------------------


def test_an_unknown_tenant_is_refused_and_told_how_to_become_known(stack: Running) -> None:
    with nothing_left(stack), pytest.raises(Refused, match="headgate tenant create nobody"):
        stack.client.submit(graph_of(NOOP), tenant="nobody")


def test_a_run_whose_task_no_worker_serves_is_on_record_within_two_seconds_and_waits_saying_why(stack: Running) -> None:
    if registry.get("elsewhere.absent") is None:
        task(name="elsewhere.absent")(lambda: None)
    tenant = f"alone-{new_key()[-8:].lower()}"
    stack.client.tenants.create(tenant)
    asked_at = time.monotonic()
    run = stack.client.submit(graph_of(NOOP, {"id": "b", "task": "elsewhere.absent"}), tenant=tenant)
    assert time.monotonic() - asked_at < 2
    assert run.status == "held"
    assert until(lambda: run.held)[0] == "worker"
    run.cancel()
    assert run.wait(TIMEOUT_S).outcome == "cancelled"
    assert {node["outcome"] for node in run.nodes} == {"cancelled"}


MALFORMED: dict[str, tuple[Any, str]] = {
    "not JSON": ('{"name": "x", "nodes": [', "JSON"),
    "a list": ("[]", "object"),
    "no nodes": ({"name": "x", "nodes": []}, "nodes"),
    "NaN": ('{"name": "x", "nodes": [{"id": "a", "task": "synthetic.sleep", "params": {"seconds": NaN}}]}', "nan"),
    "a key twice": ('{"name": "x", "name": "y", "nodes": [{"id": "a", "task": "synthetic.noop"}]}', "name"),
    "control characters": ({"name": "x\u0007", "nodes": [NOOP]}, "name"),
    "unknown task": ({"name": "x", "nodes": [{"id": "a", "task": "synthetic.nop"}]}, "did you mean 'synthetic.noop'"),
    "missing parameter": ({"name": "x", "nodes": [{"id": "a", "task": "synthetic.sleep"}]}, "seconds"),
    "unknown parameter": ({"name": "x", "nodes": [{"id": "a", "task": "synthetic.noop", "params": {"x": 1}}]}, "'x'"),
    "wrong type": ({"name": "x", "nodes": [{"id": "a", "task": "synthetic.sleep", "params": {"seconds": "soon"}}]}, "seconds"),
    "duplicate id": ({"name": "x", "nodes": [NOOP, NOOP]}, "duplicate id"),
    "self-loop": ({"name": "x", "nodes": [{**NOOP, "after": ["a"]}]}, "self-loop: a -> a"),
    "cycle": ({"name": "x", "nodes": [{**NOOP, "after": ["b"]}, {**NOOP, "id": "b", "after": ["a"]}]}, "cycle: a -> b -> a"),
    "dangling reference": ({"name": "x", "nodes": [{**NOOP, "params": {"inputs": [{"$ref": "z"}]}}]}, "'z'"),
    "maps itself": ({"name": "x", "nodes": [{**NOOP, "map": {"$ref": "a"}}]}, "cannot wait for itself"),
    "required needs optional": (
        {"name": "x", "nodes": [{**NOOP, "required": False}, {"id": "b", "task": "node_tasks.length", "params": {"text": {"$ref": "a"}}}]},
        "optional node 'a'",
    ),
    "a float of money": ({"name": "x", "nodes": [{**NOOP, "estimate": {"llm": 1.5}}]}, "estimate"),
    "large params": ({"name": "x", "nodes": [{**NOOP, "params": {"inputs": ["x" * 70_000]}}]}, "params"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_graph_gets_one_clear_message_and_leaves_nothing_behind(kind: str, stack: Running) -> None:
    source, said = MALFORMED[kind]
    with nothing_left(stack), pytest.raises(GraphInvalid) as invalid:
        stack.client.submit(Graph.parse(source))
    assert len(invalid.value.problems) == 1, invalid.value.problems
    assert said in invalid.value.problems[0]
    assert "Traceback" not in str(invalid.value)


def test_too_many_nodes_for_the_settings_are_refused(stack: Running) -> None:
    graph = Graph.parse({"name": "x", "nodes": [{**NOOP, "id": f"n{index}"} for index in range(10_000)]})
    larger = graph.model_copy(update={"nodes": (*graph.nodes, graph.nodes[0].model_copy(update={"id": "one-more"}))})
    with nothing_left(stack), pytest.raises(GraphInvalid, match="10,001 nodes are more than the limit of 10,000"):
        stack.client.submit(larger)


# -- deaths ------------------------------------------------------------------------------------------------------------------


def test_a_submission_whose_producer_dies_once_it_is_on_record_is_run_by_the_sweeper(stack: Running) -> None:
    graph = graph_of(NOOP, {"id": "b", "task": "synthetic.noop", "after": ["a"]}).resolved(registry)
    submission = Submission.of(graph, stack.client.settings)
    run_id = stack.client._store(submission, "default", None, None)
    run = RunHandle(stack.client, run_id, 1)
    assert run.status == "submitted"
    assert run.wait(TIMEOUT_S).outcome == "succeeded"


def test_a_submission_whose_producer_dies_while_it_loads_is_completed_by_the_sweeper(stack: Running) -> None:
    graph = graph_of(NOOP, {"id": "b", "task": "synthetic.noop", "after": ["a"]}).resolved(registry)
    submission = Submission.of(graph, stack.client.settings)
    run_id = stack.client._store(submission, "default", None, None)
    state = stack.client.kernel.state
    assert state.admit(run_id, 1, "default", submission.want(None))[0] == "admitted"
    (rows,) = submission.rows({})
    assert state.load(run_id, 1, rows[:1], {}) == 1
    assert RunHandle(stack.client, run_id, 1).wait(TIMEOUT_S).outcome == "succeeded"


def test_a_dead_producer_s_refusal_is_recorded_by_the_sweeper(stack: Running) -> None:
    submission = Submission.of(graph_of(spend("a", 30_000)).resolved(registry), stack.client.settings)
    run_id = stack.client._store(submission, "default", None, 10_000)
    run = RunHandle(stack.client, run_id, 1).wait(TIMEOUT_S)
    assert (run.status, stack.keys_of(run_id)) == ("refused", [])
