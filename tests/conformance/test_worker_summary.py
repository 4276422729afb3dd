"""What a worker did, from the events of its life."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from orchestrator.artifacts.file import write_json
from orchestrator.artifacts.place import worker_summary as path_of
from orchestrator.artifacts.worker_summary import Life, lives, summarise, write_missing
from orchestrator.artifacts.writer import ArtifactWriter
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position
from tests.query_plans import plan_of

pytestmark = pytest.mark.both_records

INFO = {"name": "w1@here", "host": "here", "pools": ["default"]}


def event(kind: str, at: int, **fields: Any) -> dict[str, Any]:
    return {"t": kind, "at": at, **fields}


def numbered(*events: dict[str, Any], epoch: int = 1) -> list[tuple[Position, dict[str, Any]]]:
    return [(Position(epoch, seq), each) for seq, each in enumerate(events, 1)]


def began(node: str, attempt: int, inc: str) -> dict[str, Any]:
    return event("node.began", 0, run="r", gen=1, node=node, attempt=attempt, inc=inc)


def ended(node: str, attempt: int, outcome: str) -> dict[str, Any]:
    return event("node.ended", 0, run="r", gen=1, node=node, attempt=attempt, outcome=outcome)


def test_a_life_ends_by_leaving_by_silence_and_with_a_rebuilt_epoch() -> None:
    first = numbered(
        event("epoch.opened", 1, rebuilt=0),
        event("worker.enrolled", 10, inc="a", info=INFO),
        event("worker.enrolled", 20, inc="b", info=INFO),
        event("worker.enrolled", 25, inc="c", info=INFO),
        event("worker.retired", 30, inc="a"),
        event("worker.dead", 40, inc="b"),
        event("worker.dead", 41, inc="never enrolled"),
    )
    found = lives([*first, *numbered(event("epoch.opened", 90, rebuilt=1), event("worker.enrolled", 95, inc="d", info=INFO), epoch=2)])
    assert [(life.worker_id, life.started_ms, life.ended_ms, life.how) for life in found] == [
        ("a", 10, 30, "retired"),
        ("b", 20, 40, "dead"),
        ("c", 25, 90, "lost"),
    ]
    assert found[0].info == INFO


def test_the_summary_counts_the_attempts_that_the_worker_began() -> None:
    life = Life("a", Position(1, 1), Position(1, 99), 1_000, 5_000, "retired", INFO)
    retry = event("node.retry", 0, run="r", gen=1, node="y", attempt=1, outcome="failed")
    events = [
        *(began("x", 1, "a"), began("y", 1, "a"), began("z", 1, "b"), began("late", 1, "a"), began("u", 1, "a")),
        *(ended("x", 1, "succeeded"), retry, began("y", 2, "b"), ended("y", 2, "succeeded"), ended("z", 1, "failed")),
        ended("u", 1, "timed_out"),
    ]
    summary = summarise(life, events)
    assert {name: summary[name] for name in ("executed", "succeeded", "failed", "success_rate", "throughput_per_s")} == {
        "executed": 4,
        "succeeded": 1,
        "failed": 2,
        "success_rate": 0.25,
        "throughput_per_s": 1.0,
    }
    assert (summary["started"], summary["ended"], summary["schema_version"]) == (1.0, 5.0, 1)
    assert summarise(life, [])["success_rate"] is None


@pytest.fixture
def recorded(database_url: str) -> Any:
    """A record of one worker's whole life."""
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    events = [
        event("worker.enrolled", 1_000, inc="a", info=INFO),
        began("x", 1, "a"),
        ended("x", 1, "succeeded"),
        event("worker.retired", 3_000, inc="a"),
    ]
    rows = [
        {"epoch": 1, "seq": position.seq, "at": each["at"], "type": each["t"], "data": json.dumps(each)}
        for position, each in numbered(*events)
    ]
    with engine.begin() as connection:
        connection.execute(insert(t.event), rows)
    yield engine
    engine.dispose()


def test_what_is_missing_is_written_once_and_found_by_an_index(recorded: Any, home: Path) -> None:
    assert write_missing(recorded, home) == ["a"]
    assert json.loads(path_of(home, "a").read_text())["executed"] == 1
    assert write_missing(recorded, home) == []
    assert [path.name for path in path_of(home, "a").parent.iterdir()] == ["worker_summary_a.json"]
    wanted = select(t.event.c.data).where(text(t.OF_WORKERS)).order_by(t.event.c.epoch, t.event.c.seq)
    assert "event_worker" in plan_of(recorded, wanted)


def test_a_disk_that_takes_nothing_stops_nobody(recorded: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = ArtifactWriter(recorded, tmp_path / "file", b"a key of the tests")
    writer.workers_ended()
    writer.close()
    home = tmp_path / "other"
    writer = ArtifactWriter(recorded, home, b"a key of the tests")
    writer.workers_ended()
    writer.close()
    assert path_of(home, "a").exists()


def test_an_artifact_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_json(path, {"n": 1})
    with pytest.raises(TypeError):
        write_json(path, {"n": object()})
    assert json.loads(path.read_text()) == {"n": 1}
    assert [each.name for each in path.parent.iterdir()] == ["b.json"]
