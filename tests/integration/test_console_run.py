"""The page of a run: what it reads of a real run, at ten thousand nodes too, and that Flower's loop goes on meanwhile."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path

from consoles import answer, told
from running import Running
from sqlalchemy import insert

from benchmarks.console.requests import LOOP_MAX_S, Connection, added_s, in_seconds
from orchestrator.graph import Graph
from orchestrator.store import tables as t
from orchestrator.store.engine import open_engine
from tests.stored_runs import run_id

ROUNDS = 8


def test_a_runs_page_reads_its_graph_states_one_node_events_and_record(stack: Running, console: str, tmp_path: Path) -> None:
    params = {"name": "f", "log": str(tmp_path / "log"), "path": "/nowhere"}
    nodes = [
        {"id": "a", "task": "synthetic.noop"},
        {"id": "f", "task": "node_tasks.needs", "params": params, "attempts": 1, "after": ["a"]},
        {"id": "z", "task": "synthetic.noop", "after": ["f"]},
    ]
    run = stack.client.submit(Graph.parse({"name": "fails", "nodes": nodes})).wait(30)
    url = f"{console}/run/{run.run_id}"
    assert run.run_id in answer(url)[1]
    summary = told(f"{url}/summary")
    assert (summary["state"], summary["total"], summary["generations"]) == ("failed", 3, [[1, "failed"]])
    drawn, states = told(f"{url}/graph"), told(f"{url}/nodes")
    assert drawn["ids"] == ["a", "f", "z"]
    assert [edge[:2] for edge in drawn["edges"]] == [[0, 1], [1, 2]]
    assert states["states"] == "sfu"
    assert states["over"]
    assert told(f"{url}/nodes?since={states['at']}")["same"]
    node = told(f"{url}/node?id=f")
    assert node["outcome"] == "failed"
    assert node["tries"][0]["outcome"] == "failed"
    assert "Traceback" in node["error"]["traceback"]
    assert {entry["kind"] for entry in node["entries"]} >= {"reserve", "settle"}
    assert json.loads(node["params"])["path"] == "/nowhere"
    types = [event["type"] for event in told(f"{url}/events")["events"]]
    assert types[-1] == "run.ended"
    assert "node.began" in types
    assert told(f"{url}/record")["outcome"] == "failed"
    assert told(f"{url}/decisions") == {"decisions": []}
    assert answer(f"{url}/node?id=none")[0] == 404
    assert answer(f"{url}/node")[0] == 400
    assert answer(f"{url}/nodes?g=9")[0] == 404
    assert answer(f"{console}/run/{'0' * 26}/summary")[0] == 404
    assert answer(f"{console}/run/../../etc/passwd")[0] == 404


def test_the_log_of_a_node_is_read_by_attempt_and_from_where_it_was_read_before(stack: Running, console: str) -> None:
    nodes = [{"id": "a", "task": "talk.say", "params": {"words": "a", "fails": 1}, "attempts": 2}, {"id": "q", "task": "synthetic.noop"}]
    run = stack.client.submit(Graph.parse({"name": "talks", "nodes": nodes})).wait(60)
    url = f"{console}/run/{run.run_id}/log"
    newest = told(f"{url}?id=a")
    assert (newest["attempt"], newest["over"], newest["missing"], len(newest["lines"])) == (2, True, 0, 4)
    number, at, level, logger, text = newest["lines"][0]
    assert (number, level, logger, "at attempt 2" in text, at > 1e9) == (1, "WARNING", "talking_tasks", True, True)
    assert [line[0] for line in told(f"{url}?id=a&attempt=1&after=2")["lines"]] == [3, 4]
    assert told(f"{url}?id=a&attempt=9")["lines"] == told(f"{url}?id=q")["lines"] == told(f"{url}?id=none")["lines"] == []
    assert answer(url)[0] == answer(f"{url}?id=a&attempt=x")[0] == 400
    assert answer(f"{url}?id=..%2F..%2F..%2Fheadgate")[0] == 200
    assert answer(f"{console}/run/{'0' * 26}/log?id=a")[0] == 404


def test_a_run_of_ten_thousand_nodes_is_read_soon_and_keeps_flowers_loop_from_nobody(stack: Running, console: str) -> None:
    nodes = [{"id": f"n{at}", "task": f"t{at % 7}", "after": [f"n{(at - 1) // 3}"] if at else []} for at in range(10_000)]
    row = {"run_id": run_id(777), "generation": 1, "tenant": "default", "graph_name": "large", "status": "ended", "outcome": "succeeded"}
    spec = zlib.compress(json.dumps({"name": "large", "nodes": nodes}).encode())
    now = int(time.time() * 1000)
    writer = open_engine(stack.client.settings.resolved_database_url(), writer=True)
    with writer.begin() as connection:
        more = {"submitted_at": now, "started_at": now, "finished_at": now, "labels": "{}", "cost_micros": 0, "digest": "large-10000"}
        connection.execute(insert(t.run), [{**row, **more, "spec": spec}])
        base = {
            "run_id": row["run_id"],
            "generation": 1,
            "state": "ended",
            "outcome": "succeeded",
            "worker": "w1",
            "attempt": 1,
            "cost_micros": 1,
        }
        costs = dict.fromkeys(("cost_llm", "cost_retrieval", "cost_storage", "cost_compute", "cost_other"), 0)
        times = {"queued_at": now, "started_at": now + 10, "finished_at": now + 20, "result": "x" * 500}
        connection.execute(insert(t.node), [{**base, **costs, **times, "node_id": node["id"]} for node in nodes])
    writer.dispose()
    url = f"{console}/run/{row['run_id']}"
    took: dict[str, float] = {}
    for path in ("", "/summary", "/nodes", "/graph"):
        assert answer(url + path)[0] == 200
    connection = Connection(console)
    for _ in range(ROUNDS):
        for path in ("", "/summary", "/nodes", "/graph"):
            took[path] = min(took.get(path, 99.0), in_seconds(connection, f"/run/{row['run_id']}{path}"))
    # What is promised is half a second and 50 ms. The machine that tests run on is shared, and its stalls are not the page's: so the best
    # of some rounds, and for the loop what a page adds to the longest wait without one.
    assert sum(took.values()) < 2, took
    for path in took:
        assert added_s(connection, console, f"/run/{row['run_id']}{path}", ROUNDS, LOOP_MAX_S) < LOOP_MAX_S, path
    connection.close()
