"""What becomes of a node: attempts, failures, timeouts, deaths, duplicates; and ordinary Celery tasks beside nodes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import celery
import node_tasks as t
import pytest
from running import CELERY_WORKERS, SLOTS, WORKERS, Running, by_id, until

from orchestrator import RunFailed, canvas, dag
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from tenancy.transport.queue import Queue

TIMEOUT_S = 15


def nodes(*given: dict[str, Any], name: str = "nodes") -> Graph:
    return Graph.parse({"name": name, "nodes": list(given)})


def one(task: str, /, **params: Any) -> Graph:
    return nodes({"id": "n", "task": task, "params": params})


def finish(stack: Running, graph: Graph, **options: Any) -> RunHandle:
    return stack.client.submit(graph, **options).wait(TIMEOUT_S)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def events(run: RunHandle, kind: str) -> list[dict[str, Any]]:
    return [event for event in run.events if event["t"] == kind]


# -- existing Celery tasks as nodes ------------------------------------------------------------------------------------------


def test_a_bound_celery_task_with_a_base_class_of_its_own_is_a_node_unchanged(stack: Running) -> None:
    run = finish(stack, one("theirs.based", text="x"))
    assert run.result() == ["their own base class: x", "theirs.based", 0, f"{run.run_id}.1.n", "called through it"]


def test_an_adopted_task_joins_python_and_json_graphs_alike(stack: Running) -> None:
    @dag
    def sums() -> Any:
        return t.adopted["theirs.shared"](x=t.adopted["theirs.shared"](x=1, y=2), y=4)

    assert finish(stack, sums()).result() == 7


@pytest.mark.parametrize("name", ["theirs.retrying", "theirs.retrying_for_all", "theirs.autoretrying"])
def test_self_retry_and_autoretry_make_another_attempt_of_the_node(name: str, stack: Running) -> None:
    run = finish(stack, one(name, times=1))
    assert run.result() == 1
    node = by_id(run)["n"]
    assert (node["outcome"], node["attempt"], node["fails"]) == ("succeeded", 2, 1)
    assert [event["delay_ms"] for event in events(run, "node.retry")] == [50]


def test_a_task_that_used_up_its_own_max_retries_fails_for_good(stack: Running) -> None:
    run = finish(stack, nodes({"id": "n", "task": "theirs.autoretrying", "params": {"times": 9}, "attempts": 5}))
    node = by_id(run)["n"]
    assert (run.outcome, node["outcome"], node["attempt"]) == ("failed", "failed", 2)
    assert node["error"]["type"] == "ConnectionError"


def test_async_tasks_are_awaited(stack: Running) -> None:
    assert finish(stack, one("node_tasks.slowly", text="canals")).result() == "CANALS"


# -- failures ----------------------------------------------------------------------------------------------------------------


def test_a_failing_node_is_tried_again_with_growing_delays_until_it_succeeds(stack: Running) -> None:
    run = finish(stack, one("synthetic.fail", times=2))
    assert (run.outcome, run.result()) == ("succeeded", 3)
    node = by_id(run)["n"]
    assert (node["attempt"], node["fails"]) == (3, 2)
    retries = events(run, "node.retry")
    assert [event["attempt"] for event in retries] == [1, 2]
    assert "attempt 1 fails" in str(retries[0]["error"])
    assert 1000 <= retries[0]["delay_ms"] <= 2000 <= retries[1]["delay_ms"] <= 4000
    began = events(run, "node.began")
    for retry, again in zip(retries, began[1:], strict=True):
        assert again["at"] >= retry["at"] + retry["delay_ms"]


def test_what_a_failed_required_node_feeds_is_upstream_failed_and_the_rest_ends(stack: Running) -> None:
    run = finish(
        stack,
        nodes(
            {"id": "root", "task": "synthetic.noop"},
            {"id": "bad", "task": "synthetic.fail", "params": {"times": 9}, "attempts": 1, "after": ["root"]},
            {"id": "good", "task": "synthetic.sleep", "params": {"seconds": 0.1}, "after": ["root"]},
            {"id": "join", "task": "synthetic.noop", "after": ["bad", "good"]},
            {"id": "tail", "task": "synthetic.noop", "after": ["join"]},
            {"id": "beside", "task": "synthetic.noop", "after": ["good"]},
        ),
    )
    assert run.outcome == "failed"
    outcomes = {node["id"]: node["outcome"] for node in run.nodes}
    assert outcomes == {
        "root": "succeeded",
        "bad": "failed",
        "good": "succeeded",
        "beside": "succeeded",
        "join": "upstream_failed",
        "tail": "upstream_failed",
    }
    assert by_id(run)["bad"]["error"]["type"] == "RuntimeError"
    with pytest.raises(RunFailed) as failed:
        run.result("bad")
    assert (failed.value.outcome, failed.value.node) == ("failed", "bad")
    assert "RuntimeError" in str(failed.value)


def test_a_failed_optional_node_degrades_the_run_and_its_consumers_get_the_default_or_a_shorter_list(stack: Running) -> None:
    run = finish(
        stack,
        nodes(
            {"id": "bad", "task": "synthetic.fail", "params": {"times": 9}, "attempts": 1, "required": False},
            {"id": "good", "task": "node_tasks.length", "params": {"text": "four"}},
            {
                "id": "join",
                "task": "node_tasks.together",
                "params": {"parts": [{"$ref": "good"}, {"$ref": "bad", "default": -1}], "rest": {"$ref": "bad", "default": "none"}},
            },
        ),
    )
    assert run.outcome == "degraded"
    assert by_id(run)["bad"]["outcome"] == "failed"
    parts, rest = run.result()
    assert rest == "none"
    assert parts == [4, -1]


def test_an_optional_node_without_its_input_is_skipped_with_it_and_drops_out_of_lists(stack: Running) -> None:
    bad = {"id": "bad", "task": "synthetic.fail", "params": {"times": 9}, "attempts": 1, "required": False}
    needs = {"id": "needs", "task": "node_tasks.length", "params": {"text": {"$ref": "bad"}}, "required": False}
    good = {"id": "good", "task": "node_tasks.length", "params": {"text": "four"}}
    join = {"id": "join", "task": "node_tasks.total", "params": {"numbers": [{"$ref": "good"}, {"$ref": "needs"}]}, "required": False}
    run = finish(stack, nodes(bad, needs, good, join))
    found = by_id(run)
    assert run.outcome == "degraded"
    assert [found[node]["outcome"] for node in ("bad", "needs", "good")] == ["failed", "skipped", "succeeded"]
    assert "'bad'" in found["needs"]["reason"]
    assert found["join"]["outcome"] == "succeeded"
    assert run.result() == 4


def test_a_result_that_is_no_json_fails_its_node_at_once(stack: Running) -> None:
    run = finish(stack, one("node_tasks.odd"))
    node = by_id(run)["n"]
    assert (run.outcome, node["outcome"], node["attempt"]) == ("failed", "failed", 1)
    assert "not JSON" in node["error"]["message"]


@pytest.mark.parametrize(("characters", "type_"), [(10_000_000, "RuntimeError"), (0, "Speechless")])
def test_whatever_an_error_says_its_node_fails_with_a_text_of_bounded_length(characters: int, type_: str, stack: Running) -> None:
    run = finish(stack, nodes({"id": "n", "task": "node_tasks.shout", "params": {"characters": characters}, "attempts": 1}))
    node = by_id(run)["n"]
    assert (node["outcome"], node["attempt"], node["error"]["type"]) == ("failed", 1, type_)
    assert len(str(node["error"])) < 20_000


def test_a_large_result_travels_by_reference(stack: Running) -> None:
    run = finish(
        stack,
        nodes(
            {"id": "big", "task": "synthetic.emit", "params": {"bytes": 100_000}},
            {"id": "small", "task": "synthetic.emit", "params": {"bytes": 4_000}},
            {"id": "length", "task": "node_tasks.length", "params": {"text": {"$ref": "big"}}, "after": ["small"]},
        ),
    )
    assert run.result() == 100_000
    assert run.result("big") == "x" * 100_000
    inline = stack.redis.hgetall(f"hg1:result:{run.run_id}.1")
    assert inline["big"].startswith("@")
    assert not inline["small"].startswith("@")
    assert (stack.client.settings.home / "results" / inline["big"][1:]).stat().st_size == 100_002


# -- timeouts and deaths -----------------------------------------------------------------------------------------------------


def test_a_node_that_takes_too_long_is_timed_out(stack: Running) -> None:
    run = finish(stack, nodes({"id": "n", "task": "synthetic.sleep", "params": {"seconds": 20}, "timeout_s": 1, "attempts": 1}))
    node = by_id(run)["n"]
    assert (run.outcome, node["outcome"]) == ("failed", "timed_out")
    assert node["finished_at"] - node["started_at"] == pytest.approx(1, abs=0.9)


def test_a_node_that_ignores_its_timeout_is_killed_and_timed_out(stack: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "HARD_LIMIT_GRACE_S", 1)
    began = tmp_path / "began"
    graph = nodes(
        {"id": "n", "task": "node_tasks.stubborn", "params": {"path": str(began), "seconds": 20}, "timeout_s": 1, "attempts": 1},
        {"id": "after", "task": "synthetic.noop", "after": ["n"]},
        {"id": "beside", "task": "synthetic.noop"},
    )
    run = finish(stack, graph)
    found = by_id(run)
    assert run.outcome == "failed"
    assert [found[node]["outcome"] for node in ("n", "after", "beside")] == ["timed_out", "upstream_failed", "succeeded"]
    assert found["n"]["finished_at"] - found["n"]["started_at"] < 8
    assert found["n"]["error"]["type"] == "TimeLimitExceeded"


def test_a_node_whose_process_is_killed_runs_again_as_its_second_attempt(stack: Running, tmp_path: Path) -> None:
    release, log = tmp_path / "release", tmp_path / "log"
    run = stack.client.submit(one("node_tasks.wait_for", path=str(release), log=str(log)))
    until(lambda: lines(log))
    first = int(lines(log)[0].split()[1])
    assert first in stack.pool_pids()
    os.kill(first, signal.SIGKILL)
    until(lambda: len(lines(log)) == 2)
    release.touch()
    assert run.wait(TIMEOUT_S).result() == 2
    node = by_id(run)["n"]
    assert (run.outcome, node["attempt"], node["fails"], node["lost"]) == ("succeeded", 2, 0, 1)
    assert [line.split()[0] for line in lines(log)] == ["1", "2"]


# -- duplicates and cancelling -----------------------------------------------------------------------------------------------


def test_a_second_delivery_of_a_node_s_message_does_not_run_it_twice(stack: Running, tmp_path: Path) -> None:
    release, log = tmp_path / "release", tmp_path / "log"
    run = stack.client.submit(one("node_tasks.wait_for", path=str(release), log=str(log)))
    until(lambda: lines(log))
    task_id = f"{run.run_id}.1.n"
    payload = stack.redis.hget("hg1:msg", stack.redis.hget("hg1:once", task_id))
    queue = Queue(stack.client.kernel.link)
    while_it_runs = queue.put(payload, "default", 5, "default", 1000, task_id, 1)
    until(lambda: not stack.redis.hexists("hg1:msg", while_it_runs))
    release.touch()
    run.wait(TIMEOUT_S)
    after_its_end = queue.put(payload, "default", 5, "default", 1000, task_id, 1)
    until(lambda: not stack.redis.hexists("hg1:msg", after_its_end))
    assert (run.outcome, by_id(run)["n"]["attempt"], len(lines(log))) == ("succeeded", 1, 1)
    assert len(events(run, "node.duplicate")) == 1
    assert len(events(run, "node.began")) == 1


def test_after_cancel_nothing_begins_and_every_node_has_an_outcome(stack: Running, tmp_path: Path) -> None:
    release, log = tmp_path / "release", tmp_path / "log"
    params = {"path": str(release), "log": str(log)}
    slots = WORKERS * SLOTS
    waiting = [{"id": f"w{index}", "task": "node_tasks.wait_for", "params": params} for index in range(3 * slots)]
    last = {"id": "last", "task": "synthetic.noop", "after": [node["id"] for node in waiting]}
    run = stack.client.submit(nodes(*waiting, last))
    until(lambda: len(lines(log)) == slots)
    assert run.cancel(reason="enough") is True
    release.touch()
    run.wait(TIMEOUT_S)
    assert run.outcome == "cancelled"
    outcomes = [node["outcome"] for node in run.nodes]
    assert outcomes.count("cancelled") == 2 * slots + 1
    assert outcomes.count("succeeded") == slots
    assert len(lines(log)) == slots
    until(lambda: not [once for once in stack.redis.hkeys("hg1:once") if once.startswith(run.run_id)])
    assert run.cancel() is False


# -- ordinary Celery beside nodes --------------------------------------------------------------------------------------------


def send(stack: Running, name: str, *args: Any, **options: Any) -> Any:
    return stack.app.send_task(name, args, headers={"tenant": "default"}, **options)


@pytest.mark.parametrize(
    ("name", "args", "result"),
    [
        ("theirs.shared", (2, 3), 5),
        ("node_tasks.length", ("four",), 4),
        ("node_tasks.slowly", ("a",), "A"),
        ("node_tasks.nameless", (), "lambda"),
    ],
)
def test_ordinary_messages_of_the_same_tasks_run_and_give_results_as_celery_does(
    name: str, args: tuple[Any, ...], result: Any, stack: Running
) -> None:
    assert send(stack, name, *args).get(timeout=TIMEOUT_S) == result


def test_an_ordinary_task_that_fails_or_retries_does_so_as_in_stock_celery(stack: Running) -> None:
    assert send(stack, "theirs.retrying", 1).get(timeout=TIMEOUT_S) == 1
    assert send(stack, "theirs.autoretrying", 1).get(timeout=TIMEOUT_S) == 1
    with pytest.raises(ConnectionError):
        send(stack, "theirs.autoretrying", 9).get(timeout=TIMEOUT_S)


def test_groups_chains_and_chords_of_ordinary_tasks_work_on_our_transport_and_backend(stack: Running) -> None:
    def add(*args: int) -> Any:
        return stack.app.signature("theirs.shared", args, headers={"tenant": "default"})

    summed = stack.app.signature("node_tasks.total", headers={"tenant": "default"})
    assert celery.group(add(n, n) for n in range(5)).apply_async().get(timeout=TIMEOUT_S) == [0, 2, 4, 6, 8]
    assert celery.chain(add(1, 1), add(2)).apply_async().get(timeout=TIMEOUT_S) == 4
    assert celery.chord([add(n, n) for n in range(5)], summed).apply_async().get(timeout=TIMEOUT_S) == 20


def test_a_message_with_a_countdown_waits_in_redis_until_it_is_due(stack: Running) -> None:
    sent_at = time.time()
    result = send(stack, "theirs.shared", 1, 1, countdown=1.5)
    delayed = stack.redis.zrange("hg1:delayed", 0, -1, withscores=True)
    assert any(abs(score / 1000 - sent_at - 1.5) < 0.5 and result.id in stack.redis.hget("hg1:msg", tag) for tag, score in delayed)
    assert result.get(timeout=TIMEOUT_S) == 2
    assert time.time() - sent_at >= 1.4


def test_inspect_finds_the_workers_and_what_they_run(stack: Running, tmp_path: Path) -> None:
    release, log = tmp_path / "release", tmp_path / "log"
    run = stack.client.submit(one("node_tasks.wait_for", path=str(release), log=str(log)))
    until(lambda: lines(log))
    inspect = stack.app.control.inspect(timeout=5, limit=CELERY_WORKERS)
    pongs = inspect.ping()
    assert len(pongs) == CELERY_WORKERS
    assert all(answer == {"ok": "pong"} for answer in pongs.values())
    # A worker's main process counts a task as active once its pool has said so, which may be after the task's first line.
    until(lambda: [entry["id"] for entries in inspect.active().values() for entry in entries] == [f"{run.run_id}.1.n"])
    release.touch()
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
