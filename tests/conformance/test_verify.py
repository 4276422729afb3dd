"""The chains of the whole record: what was done to any event, also to those of no run, is told with its position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, delete, insert, update

from orchestrator.cli import main
from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.replay.verify import verify
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position

pytestmark = pytest.mark.both_records

KEY = b"a key of the tests"


def due(run: str, gen: int = 1) -> dict[str, Any]:
    return {"t": "node.due", "tenant": "acme", "run": run, "gen": gen, "nodes": ["a"]}


def pauses(scope: str) -> dict[str, Any]:
    return {"t": "scope.paused", "scope": scope, "by": "ann", "reason": ""}


EPOCHS = (
    [{"t": "epoch.opened", "epoch": 1, "rebuilt": 0}, due("r1"), pauses("platform"), due("r2"), due("task.x", 0)],
    [{"t": "epoch.opened", "epoch": 2, "rebuilt": 1, "after": "1-5"}, due("r1"), pauses("tenant:acme"), due("r1", 2)],
)
CHAINS = {"platform": 4, "r1.1": 2, "r1.2": 1, "r2.1": 1, "task.x.0": 1}


@pytest.fixture
def engine(database_url: str) -> Engine:
    made = open_engine(database_url, writer=True)
    create_tables(made)
    with made.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=0, seq=0))
    for epoch, events in enumerate(EPOCHS, 1):
        apply(made, [Entry(Position(epoch, seq), json.dumps({"at": seq, **event})) for seq, event in enumerate(events, 1)], {}, KEY)
    return made


def told(engine: Engine, *, platform: bool = False) -> dict[str, tuple[str, ...]]:
    return {each.chain: each.differences for each in verify(engine, KEY, platform=platform) if each.differences}


def test_every_chain_of_a_whole_record_is_whole(engine: Engine) -> None:
    assert {each.chain: each.events for each in verify(engine, KEY)} == CHAINS
    assert told(engine) == {}
    assert [each.chain for each in verify(engine, KEY, platform=True)] == ["platform"]


def at(epoch: int, seq: int) -> Any:
    return (t.event.c.epoch == epoch) & (t.event.c.seq == seq)


def test_a_pause_that_was_changed_is_told_and_nothing_else(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(update(t.event).where(at(1, 3)).values(data=json.dumps({"at": 3, **pauses("tenant:globex")})))
    found = told(engine)
    assert list(found) == ["platform"] == list(told(engine, platform=True))
    assert found["platform"][0].startswith("event 1-3: was changed")


def test_an_event_that_was_dropped_or_whose_whole_end_was_taken_away_is_told(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(delete(t.event).where(at(2, 3)))
        connection.execute(delete(t.event).where(at(1, 4)))
        connection.execute(delete(t.chain).where(t.chain.c.run_id == "task.x"))
    found = told(engine)
    assert found.keys() == {"platform", "r2.1", "task.x.0"}
    assert "what came last is missing" in found["platform"][0]
    assert "no end of its chain" in found["task.x.0"][0]


def test_a_rebuild_that_was_changed_is_told_of_each_run_that_went_through_it(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(update(t.event).where(at(2, 1)).values(data=json.dumps({"at": 1, **EPOCHS[1][0], "after": "1-4"})))
    assert told(engine).keys() == {"platform", "r1.1"}


def test_the_command_exits_with_1_where_something_is_told(
    engine: Engine, database_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_HOME", str(home))
    monkeypatch.setenv("HEADGATE_DATABASE_URL", database_url)
    monkeypatch.setenv("HEADGATE_LOG_KEY", KEY.decode())
    whole = CliRunner().invoke(main, ["verify"])
    assert (whole.exit_code, whole.stdout) == (0, "5 chains with 9 events: whole\n")
    with engine.begin() as connection:
        connection.execute(delete(t.event).where(at(1, 3)))
    broken = CliRunner().invoke(main, ["verify", "--platform"])
    assert broken.exit_code == 1
    assert broken.stdout.startswith("platform: event 2-1: was changed, or an event between 1-1 and it is missing")
    assert json.loads(CliRunner().invoke(main, ["verify", "--json"]).stdout)["broken"][0]["chain"] == "platform"
