"""What is long over leaves the log, and nothing else does: not money, not runs, not what is being replayed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select

from orchestrator.recorder import pruning as module
from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.recorder.pruning import MS_PER_DAY, decide_prune, prunable
from orchestrator.replay import replay_run
from orchestrator.replay.verify import verify
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position
from tenancy.errors import Unknown
from tests.query_plans import plan_of

pytestmark = pytest.mark.both_records
KEY = b"a key of the tests"
NOW = 1_000 * MS_PER_DAY
OLD, NEW = NOW - 100 * MS_PER_DAY, NOW - 3 * MS_PER_DAY


def ended(run: str, generation: int = 1) -> dict[str, Any]:
    return {
        "t": "run.ended",
        "run": run,
        "gen": generation,
        "tenant": "acme",
        "outcome": "succeeded",
        "cost": "0",
        "released": "0",
        "counts": {},
    }


def due(run: str, node: str, generation: int = 1) -> dict[str, Any]:
    return {"t": "node.due", "run": run, "gen": generation, "tenant": "acme", "node": node}


EVENTS: list[tuple[int, dict[str, Any]]] = [
    (OLD, {"t": "epoch.opened"}),
    *((OLD, event) for event in (due("long", "a"), due("long", "b"), ended("long"))),
    *((OLD, event) for event in (due("again", "a"), ended("again"))),
    *((NEW, event) for event in (due("again", "b", 2), ended("again", 2))),
    *((OLD, event) for event in (due("live", "a"), due("live", "b"))),
    *((NEW, event) for event in (due("young", "a"), ended("young"))),
    (OLD, due("task.old", "n", 0)),
    (NEW, due("task.new", "n", 0)),
    (OLD, {"t": "scope.paused", "scope": "platform"}),
]
RUNS = [("long", 1, OLD), ("again", 1, OLD), ("again", 2, NEW), ("live", 1, None), ("young", 1, NEW)]


@pytest.fixture
def engine(database_url: str) -> Engine:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=0, seq=0))
        for run_id, generation, finished_at in RUNS:
            row = {"run_id": run_id, "generation": generation, "tenant": "acme", "submitted_at": OLD, "cost_micros": 0, "labels": "{}"}
            row["status"] = "running" if finished_at is None else "ended"
            connection.execute(insert(t.run), row | {"finished_at": finished_at})
        connection.execute(insert(t.request), [{"id": "old", "at": OLD, "answer": "{}"}, {"id": "new", "at": NEW, "answer": "{}"}])
        notice = {"key": "k", "channel": "log", "tenant": "acme", "at": OLD, "body": "", "due_at": 0, "error": ""}
        connection.execute(insert(t.notice), [{**notice, "id": state, "state": state} for state in ("sent", "pending")])
    log = [Entry(Position(1, seq), json.dumps({"at": at, **event})) for seq, (at, event) in enumerate(EVENTS, 1)]
    apply(engine, log, {}, KEY)
    return engine


def ask(engine: Engine, keep_days: int = 30, number: int = 1) -> dict[str, Any]:
    event = {
        "t": "request.prune",
        "at": NOW,
        "request": f"r{number}",
        "before": NOW - keep_days * MS_PER_DAY,
        "by": "ann",
        "reason": "full",
    }
    with engine.begin() as connection:
        return decide_prune(connection, event)


def logs(engine: Engine) -> dict[tuple[str | None, int | None], int]:
    e = t.event.c
    with engine.connect() as connection:
        found = connection.execute(select(e.run_id, e.generation, func.count().label("n")).group_by(e.run_id, e.generation))
        return {(row.run_id, row.generation): row.n for row in found}


def ids(engine: Engine, table: Any) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(select(table.c.id)).scalars())


def broken(engine: Engine) -> list[str]:
    return [each.chain for each in verify(engine, KEY) if each.differences]


def test_what_is_long_over_goes_and_everything_else_stays(engine: Engine) -> None:
    whole = logs(engine)
    assert broken(engine) == []
    with engine.connect() as connection:
        assert prunable(connection, NOW - 30 * MS_PER_DAY) == {"events": 4, "runs": 1, "tasks": 1}
    assert ask(engine) == {"status": "done", "events": 4, "runs": 1, "tasks": 1, "answers": 2}
    assert logs(engine) == {name: count for name, count in whole.items() if name not in {("long", 1), ("task.old", 0)}}
    assert ids(engine, t.request) == {"new"}
    assert ids(engine, t.notice) == {"pending"}
    assert broken(engine) == []
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(t.run)).scalar() == len(RUNS)
        (line,) = connection.execute(select(t.audit).where(t.audit.c.action == "record.pruned")).all()
    assert (line.actor, json.loads(line.data)["events"], json.loads(line.data)["reason"]) == ("ann", 4, "full")
    assert ask(engine, number=2) == {"status": "done", "events": 0, "runs": 0, "tasks": 0, "answers": 0}
    with engine.connect() as connection:
        assert len(connection.execute(select(t.audit).where(t.audit.c.action == "record.pruned")).all()) == 1


def test_a_log_that_is_gone_is_not_replayed_and_says_why(engine: Engine) -> None:
    ask(engine)
    with pytest.raises(Unknown, match="the log of run long generation 1 was pruned; `headgate replay DIR` reads that of its artifacts"):
        replay_run(engine, "long", 1, KEY)
    assert replay_run(engine, "young", 1, KEY).events == 2


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
def test_piece_by_piece_it_is_the_same_and_no_chain_is_broken_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(module, "EVENTS_AT_ONCE", at_once)
    whole, gone, number = logs(engine), 0, 0
    while True:
        number += 1
        answer = ask(engine, number=number)
        gone += answer["events"]
        assert broken(engine) == []
        assert sum(whole.values()) - sum(logs(engine).values()) == gone
        if answer["status"] == "done":
            break
        assert answer["status"] == "more"
        assert number < 20
    assert gone == 4
    assert set(whole) - set(logs(engine)) == {("long", 1), ("task.old", 0)}


def test_when_the_last_generation_is_long_over_all_of_them_go(engine: Engine) -> None:
    ask(engine, keep_days=2)
    assert {run for run, _ in logs(engine) if run and not run.startswith("task")} == {"live"}
    assert broken(engine) == []


@pytest.mark.parametrize("before", [None, "soon", NOW, NOW - MS_PER_DAY + 1])
def test_a_time_that_is_none_or_too_young_is_refused_and_changes_nothing(engine: Engine, before: Any) -> None:
    whole = logs(engine)
    with engine.begin() as connection:
        answer = decide_prune(connection, {"t": "request.prune", "at": NOW, "request": "r", "before": before})
    assert answer["status"] == "invalid"
    assert logs(engine) == whole


def test_what_may_go_is_found_in_indexes(engine: Engine) -> None:
    runs = select(t.run.c.run_id).where(module._over(NOW)).order_by(t.run.c.finished_at).limit(10)
    assert "run_log" in plan_of(engine, runs)
    tasks = select(t.chain.c.run_id).where(module._OF_TASKS).order_by(t.chain.c.epoch, t.chain.c.seq).limit(10)
    assert "chain_task" in plan_of(engine, tasks)
    assert "request_at" in plan_of(engine, select(t.request.c.id).where(t.request.c.at < NOW).order_by(t.request.c.at).limit(10))
