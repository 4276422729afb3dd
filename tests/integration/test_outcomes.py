"""Joins, conditions and failure policies on real workers, as the record, Celery's result backend and Flower's states have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery.result import AsyncResult
from running import Running, by_id, until

from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.sweeper import Sweeper

TIMEOUT_S = 30


def graph(*nodes: dict[str, Any], **fields: Any) -> Graph:
    return Graph.parse({"name": "outcomes", "nodes": list(nodes), **fields})


def finish(stack: Running, made: Graph) -> RunHandle:
    return stack.client.submit(made).wait(TIMEOUT_S)


def noop(id_: str, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": "synthetic.noop", **fields}


def bad(id_: str, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": "synthetic.fail", "params": {"times": 9}, "attempts": 1, **fields}


def waits(id_: str, release: Path, log: Path, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": "node_tasks.wait_for", "params": {"path": str(release), "log": str(log)}, **fields}


def outcomes(run: RunHandle) -> dict[str, str | None]:
    return {id_: node["outcome"] for id_, node in by_id(run).items()}


def test_a_failed_node_is_failure_to_celery_and_the_tolerant_join_behind_it_runs(stack: Running) -> None:
    run = finish(
        stack,
        graph(
            bad("bad"),
            noop("lost", after=["bad"]),
            {"id": "good", "task": "node_tasks.length", "params": {"text": "four"}},
            {
                "id": "join",
                "task": "node_tasks.together",
                "params": {"parts": [{"$ref": "bad"}, {"$ref": "good"}], "rest": {"$ref": "lost", "default": "none"}},
                "join": "all_done",
            },
            noop("tail", after=["join"]),
        ),
    )
    assert run.outcome == "failed"
    assert outcomes(run) == {"bad": "failed", "lost": "upstream_failed", "good": "succeeded", "join": "succeeded", "tail": "succeeded"}
    assert run.result("join") == [[4], "none"]
    result = AsyncResult(f"{run.run_id}.1.bad", app=stack.app)
    until(lambda: result.state == "FAILURE")
    assert isinstance(result.result, RuntimeError)


def test_at_least_goes_on_at_the_nth_success_while_the_others_run_on_unheard(stack: Running, tmp_path: Path) -> None:
    release, log = tmp_path / "release", tmp_path / "log"
    run = stack.client.submit(
        graph(
            waits("slow", release, log),
            noop("a"),
            noop("b"),
            bad("bad", required=False),
            noop("join", after=["slow", "a", "b", "bad"], join="at_least(2)"),
            noop("tail", after=["join"]),
        )
    )
    until(lambda: outcomes(run)["tail"] == "succeeded")
    assert outcomes(run)["slow"] is None
    assert run.outcome is None
    release.touch()
    assert run.wait(TIMEOUT_S).outcome == "degraded"
    assert set(outcomes(run).values()) == {"succeeded", "failed"}
    assert [event["nodes"].count("join") for event in run.events if event["t"] == "node.due" and "join" in event["nodes"]] == [1]


def test_one_branch_is_taken_and_the_join_runs_once(stack: Running) -> None:
    run = finish(
        stack,
        graph(
            {"id": "kind", "task": "node_tasks.length", "params": {"text": "four"}},
            noop("four", when={"$ref": "kind", "equals": 4}),
            {"id": "then", "task": "node_tasks.length", "params": {"text": "12"}, "after": ["four"]},
            noop("else", when={"$ref": "kind", "not_equals": 4}),
            {"id": "other", "task": "node_tasks.length", "params": {"text": "123"}, "after": ["else"]},
            {"id": "join", "task": "node_tasks.together", "params": {"parts": [{"$ref": "then"}, {"$ref": "other"}]}},
            noop("tail", after=["join"]),
        ),
    )
    assert (run.outcome, run.result("join")) == ("succeeded", [[2], None])
    nodes = by_id(run)
    assert {id_ for id_, node in nodes.items() if node["outcome"] == "skipped"} == {"else", "other"}
    assert nodes["else"]["reason"] == "not taken: kind is 4"
    assert nodes["other"]["reason"] == "not taken: none of the nodes before it was taken"
    began = [event["node"] for event in run.events if event["t"] == "node.began"]
    assert sorted(began) == ["four", "join", "kind", "tail", "then"]


def test_a_long_branch_that_is_not_taken_is_written_off_in_pieces_and_its_join_runs(stack: Running) -> None:
    chain = [noop("c0", when={"$ref": "x", "equals": "never"}), *(noop(f"c{i}", after=[f"c{i - 1}"]) for i in range(1, 450))]
    run = finish(stack, graph(noop("x"), *chain, noop("join", after=["c449", "x"]), noop("deep", after=["c449"], join="all_done")))
    assert run.outcome == "succeeded"
    assert (outcomes(run)["join"], outcomes(run)["deep"], outcomes(run)["c449"]) == ("succeeded", "skipped", "skipped")


def test_a_run_that_stops_cancels_what_has_not_begun_and_lets_finish_what_runs(stack: Running, tmp_path: Path) -> None:
    release, log = tmp_path / "release", tmp_path / "log"
    held, fails = waits("held", release, log), bad("bad", after=["first"])
    first = {"id": "first", "task": "node_tasks.wait_for", "params": {"path": str(log), "log": str(tmp_path / "first")}}
    rest = [noop(f"n{i}", after=["held"]) for i in range(250)]
    run = stack.client.submit(graph(held, first, fails, *rest, noop("tidy", after=["bad"], join="all_done"), on_failure="stop"))
    until(lambda: list(outcomes(run).values()).count("cancelled") == 251)
    assert outcomes(run)["held"] is None
    assert run.outcome is None
    release.touch()
    assert run.wait(TIMEOUT_S).outcome == "failed"
    nodes = by_id(run)
    assert (nodes["held"]["outcome"], nodes["first"]["outcome"], nodes["bad"]["outcome"]) == ("succeeded", "succeeded", "failed")
    assert {node["reason"] for node in nodes.values() if node["outcome"] == "cancelled"} == {"stopped: the node 'bad' failed"}
    until(lambda: not stack.redis.exists(f"hg1:cascade:{run.run_id}.1"))


def test_the_sweeper_stops_a_run_whose_failing_worker_died_before_it_did(stack: Running, tmp_path: Path) -> None:
    """The script's fence is all that a crash may leave: nothing begins, and a sweep gives the rest its outcome."""
    release, log = tmp_path / "release", tmp_path / "log"
    run = stack.client.submit(graph(waits("held", release, log), noop("next", after=["held"]), on_failure="stop"))
    until(lambda: outcomes(run)["held"] is None and log.exists())
    stack.redis.hset(f"hg1:run:{run.run_id}.1", mapping={"stopped": "stopped: the node 'held' failed", "required_failed": 1})
    Sweeper(stack.client.kernel, stack.client.engine).sweep()
    until(lambda: outcomes(run)["next"] == "cancelled")
    release.touch()
    assert run.wait(TIMEOUT_S).outcome == "failed"


def test_fatal_fails_at_once_and_retryable_says_when_the_next_attempt_is(stack: Running) -> None:
    run = finish(stack, graph({"id": "a", "task": "node_tasks.say_how", "params": {"fatal": True, "after_s": None}, "attempts": 9}))
    node = by_id(run)["a"]
    assert (node["outcome"], node["attempt"], node["error"]["type"], node["error"]["message"]) == ("failed", 1, "Fatal", "no such account")
    run = finish(stack, graph({"id": "a", "task": "node_tasks.say_how", "params": {"fatal": False, "after_s": 0.05}}))
    assert run.result("a") == [3, f"{run.run_id}.1.a"]
    assert [event["delay_ms"] for event in run.events if event["t"] == "node.retry"] == [50, 50]
