"""Ordinary tasks on record, and after Redis lost everything: each execution is charged once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select

from cost.task_ledger import ATTEMPTS_PER_HOUR, Claim, Delivery, TaskLedger, sweep_tasks
from orchestrator.embedded import RedisServer
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from tests.integration.hands import make_recorder

pytestmark = pytest.mark.both_records


class Cell:
    def __init__(self, recorder: Recorder, url: str) -> None:
        self.recorder = recorder
        self.ledger = TaskLedger(lambda: url)
        self.redis = recorder.link.client

    def claim(self, task: str, claim: str = "c1") -> Claim:
        found = self.ledger.begin(task, "t.a", "default", 1_000, Delivery(claim, "", "", "", "w@h"))
        assert isinstance(found, Claim), found
        return found

    def record(self) -> None:
        while self.recorder.step(None):
            pass

    def lose_everything(self) -> None:
        self.redis.flushall()
        self.recorder.prepare()

    def entries(self) -> list[tuple[str, str, int, int]]:
        """Kind, task, attempt, micros."""
        self.record()
        columns = (t.ledger.c.kind, t.ledger.c.run_id, t.ledger.c.attempt, t.ledger.c.amount)
        with self.recorder.engine.connect() as connection:
            rows = connection.execute(select(*columns).order_by(t.ledger.c.id))
            return [(kind, run, attempt % ATTEMPTS_PER_HOUR, micros) for kind, run, attempt, micros in rows]

    def count(self, table: Any) -> int:
        with self.recorder.engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    def settled(self) -> int:
        row: dict[str, str] = self.redis.hgetall(next(iter(self.redis.scan_iter("hg1:spent:default:[0-9]*"))))  # type: ignore[assignment]
        assert int(row["reserved"]) == 0
        return int(row["settled"])


@pytest.fixture
def cell(redis_server: RedisServer, settings: Settings) -> Iterator[Cell]:
    cell = Cell(make_recorder(redis_server, settings), redis_server.client_url)
    yield cell
    cell.ledger.link.close()


def test_ordinary_tasks_are_rows_of_the_ledger_and_neither_runs_nor_nodes(cell: Cell) -> None:
    settled, void = cell.claim("a"), cell.claim("b")
    cell.ledger.report(settled, "llm=700", "signal")
    cell.ledger.close(void, "signal")
    assert cell.entries() == [
        ("reserve", "task.a", 1, 1_000),
        ("settle", "task.a", 1, 700),
        ("reserve", "task.b", 1, 1_000),
        ("void", "task.b", 1, 1_000),
    ]
    assert (cell.count(t.run), cell.count(t.node), cell.count(t.incident)) == (0, 0, 0)


def test_after_a_rebuild_every_execution_is_charged_once(cell: Cell) -> None:
    reported, running, swept = cell.claim("reported"), cell.claim("running"), cell.claim("swept")
    cell.ledger.report(reported, "llm=700", "signal")
    cell.ledger.note(swept, "llm=200")
    cell.ledger.close(swept, "sweeper")
    cell.record()
    unrecorded = cell.claim("unrecorded")
    cell.lose_everything()

    assert cell.settled() == 900
    assert cell.ledger.report(reported, "llm=700", "signal") == "same"
    assert [cell.ledger.report(running, "llm=50", "signal") for _ in range(2)] == ["waste", "same"]
    assert [cell.ledger.report(swept, "llm=230", "signal") for _ in range(2)] == ["waste", "same"]
    assert [cell.ledger.report(unrecorded, "llm=9", "signal") for _ in range(2)] == ["waste", "same"]
    assert cell.settled() == 989
    assert sum(micros for kind, _, _, micros in cell.entries() if kind in ("settle", "waste")) == 989

    cell.lose_everything()
    assert cell.settled() == 989
    assert cell.ledger.report(swept, "llm=230", "signal") == "same"
    assert cell.ledger.report(running, "llm=50", "signal") == "same"


def test_after_a_rebuild_no_attempt_is_handed_out_twice(cell: Cell) -> None:
    recorded = cell.claim("recorded")
    cell.record()
    lost = [cell.claim("recorded", "c2"), cell.claim("unrecorded")]
    cell.lose_everything()
    again = [cell.claim("recorded", "c3"), cell.claim("unrecorded", "c3")]
    assert not {(claim.task_id, claim.attempt) for claim in again} & {(claim.task_id, claim.attempt) for claim in [recorded, *lost]}
    for claim in again:
        assert cell.ledger.report(claim, "llm=3", "signal") == "settled"
    assert [cell.ledger.report(claim, "llm=1", "signal") for claim in lost] == ["waste", "waste"]


def test_what_a_rebuild_restored_of_tasks_goes_with_the_next_sweep(cell: Cell) -> None:
    cell.ledger.report(cell.claim("a"), "llm=1", "signal")
    cell.record()
    cell.lose_everything()
    assert cell.redis.ttl("hg1:res:task.a.0") == -1
    assert sweep_tasks(cell.ledger.link, 0) == 0
    assert 0 < int(cell.redis.ttl("hg1:res:task.a.0")) <= 3_600  # type: ignore[arg-type]
    assert cell.redis.zcard("hg1:tasks") == 0
