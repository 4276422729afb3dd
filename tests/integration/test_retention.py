"""Redis lets go of runs whose end is on record; whoever asks for them reads the record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from running import Running, by_id, until
from sqlalchemy import update

from orchestrator.cli import main
from orchestrator.client import Client
from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.recorder.batch import apply, payloads_of
from orchestrator.recorder.loop import Recorder
from orchestrator.recorder.pruning import MS_PER_DAY
from orchestrator.recorder.stream import read_after
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store import tables as t
from orchestrator.store.engine import open_engine
from orchestrator.sweeper import Sweeper
from tests.integration.hands import Hands, layers, make_recorder

TIMEOUT_S = 30
NOOP = {"task": "synthetic.noop"}
KEPT = ("hg1:events", "hg1:spent:", "hg1:served:", "hg1:tenant:")
"""What grows with what happened, and not with what is kept of runs."""


@pytest.fixture
def sweeper(stack: Running) -> Sweeper:
    """A sweeper for whom every run was kept for long enough."""
    client = Client(Settings(**{**stack.client.settings.model_dump(exclude_unset=True), "run_keys_kept_s": 0.001}))
    return Sweeper(client.kernel, stack.client.engine)


def mentions(client: Any, run_id: str) -> list[str]:
    """The keys that name a run, in their name or in what they hold; the log, and answers that nobody took within their minute, aside."""
    found = []
    reads = {"hash": client.hgetall, "set": client.smembers, "zset": lambda key: client.zrange(key, 0, -1), "string": client.get}
    for key in client.scan_iter("hg1:*", count=1000):
        if key.startswith("hg1:reply:"):
            continue
        kind = client.type(key)
        content = client.lrange(key, 0, -1) if kind == "list" else reads[kind](key) if kind in reads else ""
        if run_id in key or run_id in str(content):
            found.append(str(key))
    return found


def memory(client: Any) -> int:
    keys = [key for key in client.scan_iter("*", count=1000) if not str(key).startswith(KEPT)]
    return sum(client.memory_usage(key, samples=0) or 0 for key in keys)


def forget_all(stack: Running, sweeper: Sweeper) -> None:
    until(lambda: not stack.redis.zcard("hg1:runs"))
    until(lambda: sweeper.sweep() and not stack.redis.zcard("hg1:over"))


def test_a_run_of_every_kind_leaves_nothing_in_redis_and_its_handle_reads_on(stack: Running, sweeper: Sweeper) -> None:
    large = "x" * 10_000
    good = stack.client.submit(
        Graph.parse(
            {
                "name": "good",
                "nodes": [
                    {"id": "text", "task": "node_tasks.slowly", "params": {"text": large}},
                    {"id": "length", "task": "node_tasks.length", "params": {"text": {"$ref": "text"}}},
                ],
            }
        ),
        max_parallel=1,
    )
    bad = stack.client.submit(
        Graph.parse(
            {
                "name": "bad",
                "nodes": [
                    {"id": "shout", "task": "node_tasks.shout", "params": {"characters": 3}, "attempts": 1},
                    {"id": "after", **NOOP, "after": ["shout"]},
                ],
            }
        )
    )
    stack.client.pause("platform")
    try:
        parked = stack.client.submit(Graph.parse({"name": "parked", "nodes": [{"id": f"n{i}", **NOOP} for i in range(5)]}))
        stack.client.pause(f"run:{parked.run_id}")
    finally:
        stack.client.resume("platform")
    until(lambda: stack.redis.llen(f"hg1:parked:pause:{parked.run_id}.1") == 5)
    parked.cancel()
    runs = (good, bad, parked)
    outcomes = [run.wait(TIMEOUT_S).outcome for run in runs]
    assert outcomes == ["succeeded", "failed", "cancelled"]
    until(lambda: all(stack.redis.zscore("hg1:over", f"{run.run_id}.1") for run in runs))
    before = [(run.nodes, run.events) for run in runs]
    forget_all(stack, sweeper)
    assert [mentions(stack.redis, run.run_id) for run in runs] == [[], [], []]
    assert [(run.nodes, run.events) for run in runs] == before
    assert (good.result(), good.result("text")) == (len(large), large.upper())
    assert by_id(bad)["after"]["outcome"] == "upstream_failed"
    assert good.cancel() is False


def test_memory_is_what_it_was_before_a_hundred_runs(stack: Running, sweeper: Sweeper) -> None:
    def play(runs: int) -> None:
        handles = [stack.client.submit(Graph.parse({"name": "small", "nodes": [{"id": "a", **NOOP}]})) for _ in range(runs)]
        assert [handle.wait(TIMEOUT_S).outcome for handle in handles] == ["succeeded"] * runs
        forget_all(stack, sweeper)

    play(10)
    before = memory(stack.redis)
    play(100)
    until(lambda: memory(stack.redis) <= 1.05 * before)


def test_a_run_is_kept_until_its_end_is_on_record_and_a_recorder_that_died_before_it_said_so_says_so_at_its_next_start(
    redis_server: RedisServer, settings: Settings
) -> None:
    recorder = make_recorder(redis_server, settings)
    hands = Hands(redis_server, settings)
    hands.enroll()
    run = submit(recorder, hands)
    hands.work()
    client = recorder.link.client
    assert client.hget(f"hg1:run:{run}.1", "status") == "ended"
    assert hands.state.forget(0, [f"{run}.1"]) == [0, 0]
    entries = read_after(client, recorder.cursor, None)
    assert apply(recorder.engine, entries, payloads_of(client, entries), recorder.key).ended == [f"{run}.1"]  # and there it dies
    assert client.zcard("hg1:over") == 0
    again = make_recorder(redis_server, settings)
    assert client.zrange("hg1:over", 0, -1) == [f"{run}.1"]
    until(lambda: hands.state.forget(1, [f"{run}.1"]) == [1, 0])
    make_recorder(redis_server, settings)
    assert mentions(client, run) == []
    assert again.cursor > recorder.cursor


def submit(recorder: Recorder, hands: Hands) -> str:
    graph = layers(2, 2)
    run, _ = hands.request(graph)
    recorder.step(None)
    hands.start(run, graph)
    return run


def test_the_log_of_a_run_that_is_long_over_is_let_go_of_by_command(stack: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_HOME", str(stack.client.settings.home))
    graph = Graph.parse({"name": "kept", "nodes": [{"id": "a", **NOOP}, {"id": "b", **NOOP, "after": ["a"]}]})
    old, young = (stack.client.submit(graph) for _ in range(2))
    for run in (old, young):
        assert run.wait(TIMEOUT_S).outcome == "succeeded"
    engine = stack.client.engine
    until(lambda: all(read.get_events(engine, run.run_id)[-1].type == "run.ended" for run in (old, young)), TIMEOUT_S)
    events, shown = len(read.get_events(engine, old.run_id)), read.show_json(engine, old.run_id)
    writer = open_engine(stack.client.settings.resolved_database_url(), writer=True)
    with writer.begin() as connection:  # as if it had been two days ago
        two_days_ago = t.run.c.finished_at - 2 * MS_PER_DAY
        connection.execute(update(t.run).where(t.run.c.run_id == old.run_id).values(finished_at=two_days_ago))
    writer.dispose()

    def headgate(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(main, [*words, "--json"])
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    assert headgate("prune", "--keep-days", "1", "--dry-run") == {"events": events, "runs": 1, "tasks": 0}
    gone = headgate("prune", "--keep-days", "1", "--by", "ann", "--reason", "the disk is full")
    assert (gone["events"], gone["runs"]) == (events, 1)
    assert read.get_events(engine, old.run_id) == []
    kept = read.show_json(engine, old.run_id)
    assert {**kept, "finished_at": 0} == {**shown, "finished_at": 0}
    assert len(read.get_events(engine, young.run_id)) == events
    (line,) = (line for line in read.audit(engine) if line.action == "record.pruned")
    assert (line.actor, line.reason, line.said["events"]) == ("ann", "the disk is full", events)
    refused = CliRunner().invoke(main, ["replay", old.run_id])
    assert refused.exit_code != 0
    assert "was pruned" in refused.stderr
