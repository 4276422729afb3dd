"""The auditor: silent while all is well, also under load and after a rebuild; every difference is found, with its entries."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from cost.period import day_of, month_of, name_of
from orchestrator.auditor import Auditor
from orchestrator.embedded import RedisServer
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import open_engine
from tests.integration.hands import Hands, layers, make_recorder

pytestmark = pytest.mark.both_records

TENANT = "default"


class Cell:
    """A run under way, recorded by this process, and an auditor."""

    def __init__(self, server: RedisServer, settings: Settings) -> None:
        self.recorder: Recorder = make_recorder(server, settings)
        self.hands = Hands(server, settings)
        self.hands.enroll()
        self.link = self.hands.link
        self.redis = self.link.client
        self.auditor = Auditor(self.link, open_engine(settings.resolved_database_url()))
        self.day = day_of(int(self.link.read("TIME")[0]) * 1000)
        self.run = ""

    def begin(self) -> None:
        """Submit a run, end some of its nodes and leave one open."""
        graph = layers(3, 3)
        self.run, _ = self.hands.request(graph)
        self.record()
        self.hands.start(self.run, graph)
        self.hands.work(4, fail=0.3)
        assert self.hands.begin()
        self.record()

    def record(self) -> None:
        while self.recorder.step(None):
            pass

    def audit(self) -> list[tuple[str, int]]:
        """What differs, and by how much."""
        return [(each.what, each.counter - each.ledger) for each in self.auditor.audit(TENANT)]

    def ledger(self, kind: str) -> dict[str, Any]:
        with self.recorder.engine.connect() as connection:
            rows = connection.execute(select(t.ledger).where(t.ledger.c.kind == kind).order_by(t.ledger.c.id)).mappings()
            return dict(rows.first() or {})

    def write(self, statement: Any) -> None:
        with self.recorder.engine.begin() as connection:
            connection.execute(statement)

    def incidents(self) -> list[dict[str, Any]]:
        self.record()
        with self.recorder.engine.connect() as connection:
            rows = connection.execute(select(t.incident).order_by(t.incident.c.id)).mappings().all()
        return [{"id": row["id"], "kind": row["kind"], **json.loads(row["detail"])} for row in rows]


@pytest.fixture
def cell(redis_server: RedisServer, settings: Settings) -> Iterator[Cell]:
    cell = Cell(redis_server, settings)
    yield cell
    cell.auditor.engine.dispose()
    cell.recorder.engine.dispose()


def test_nothing_differs_while_a_run_is_under_way_and_when_it_is_over(cell: Cell) -> None:
    cell.begin()
    assert cell.audit() == []
    cell.hands.work(fail=0.3)
    cell.hands.sweep(cell.run)
    cell.record()
    assert cell.audit() == []
    assert cell.auditor.tick() == []
    assert cell.incidents() == []


def test_a_healthy_system_under_load_never_reports(cell: Cell, redis_server: RedisServer, settings: Settings) -> None:
    done = threading.Event()

    def work() -> None:
        hands = Hands(redis_server, settings, seed=2)
        hands.enroll()
        for number in range(12):
            graph = layers(4, 3)
            run, _ = hands.request(graph)
            hands.start(run, graph)
            hands.work(fail=0.2)
            if number % 3 == 0:
                hands.link.call("cost/adjust", TENANT, f"a{number}", "7" if number else "1000", "llm", cell.day, "ann", "", "")
        done.set()

    def keep() -> None:
        while not done.is_set():
            cell.recorder.step(20)
        cell.record()

    threads = [threading.Thread(target=each) for each in (work, keep)]
    for thread in threads:
        thread.start()
    audits = 0
    while not done.is_set():
        assert cell.audit() == []
        audits += 1
    for thread in threads:
        thread.join(30)
    assert audits >= 3
    assert cell.audit() == []
    assert cell.incidents() == []


def test_nothing_differs_after_a_rebuild(cell: Cell) -> None:
    cell.begin()
    cell.link.call("cost/adjust", TENANT, "k", "5", "llm", cell.day, "ann", "", "")
    cell.record()
    cell.redis.flushall()
    cell.recorder.prepare()
    cell.record()
    assert cell.audit() == []


@pytest.mark.parametrize("field", ["settled", "c:llm", "reserved", "waste"])
def test_a_counter_of_a_day_that_moved_by_itself_is_found_with_the_entries_that_it_sums(cell: Cell, field: str) -> None:
    cell.begin()
    cell.redis.hincrby(f"hg1:spent:{TENANT}:{cell.day}", field, 13)
    found = {what: by for what, by in cell.audit() if ":m" not in what}
    assert found == {f"spent:{TENANT}:{name_of(cell.day)} {field}": 13}
    (incident,) = (each for each in cell.incidents() if ":m" not in each["what"])
    assert incident["kind"] == "difference"
    assert incident["counter"] - incident["ledger"] == 13
    if field != "waste":  # of which there is no entry
        assert incident["entries"]
        assert all(name.startswith(cell.run) for name in incident["entries"])


def test_counters_of_a_month_a_tenant_and_a_purse_that_moved_are_found(cell: Cell) -> None:
    cell.begin()
    cell.redis.hincrby(f"hg1:spent:{TENANT}:m{month_of(cell.day)}", "settled", -3)
    cell.redis.hincrby(f"hg1:tenant:{TENANT}", "held", 4)
    cell.redis.hincrby(f"hg1:tenant:{TENANT}", "running", 1)
    cell.redis.hincrby(f"hg1:purse:{cell.run}.1", "reserved", 5)
    cell.redis.sadd(f"hg1:open:{cell.run}.1", "n0.0:9")
    assert dict(cell.audit()) == {
        f"spent:{TENANT}:m{month_of(cell.day)} settled": -3,
        f"tenant:{TENANT} held": 4,
        f"tenant:{TENANT} reserved": -5,
        f"tenant:{TENANT} running": 1,
        f"purse:{cell.run}.1 reserved": 5,
        f"open:{cell.run}.1": 1,
    }
    named = {each["what"]: each["entries"] for each in cell.incidents()}
    assert named[f"open:{cell.run}.1"] == [f"{cell.run}.1.n0.0.9"]
    assert named[f"tenant:{TENANT} held"] == [f"{cell.run}.1.hold"]


def test_a_missing_row_is_named(cell: Cell) -> None:
    cell.begin()
    lost = cell.ledger("settle")
    cell.write(delete(t.ledger).where(t.ledger.c.id == lost["id"]))
    found = dict(cell.audit())
    assert found[f"spent:{TENANT}:{name_of(cell.day)} settled"] == lost["amount"]
    assert {tuple(each["entries"]) for each in cell.incidents()} == {(lost["id"],)}
    assert {each["why"] for each in cell.incidents()} == {"missing in the ledger"}


def test_a_missing_adjustment_is_named(cell: Cell) -> None:
    cell.link.call("cost/adjust", TENANT, "k", "5", "llm", cell.day, "ann", "", "")
    cell.record()
    lost = cell.ledger("adjust")
    cell.write(delete(t.ledger).where(t.ledger.c.id == lost["id"]))
    assert {what.rpartition(" ")[2]: by for what, by in cell.audit()} == {"settled": 5, "c:llm": 5}
    assert {tuple(each["entries"]) for each in cell.incidents()} == {(lost["id"],)}


def test_a_doubled_row_and_a_changed_one_are_named(cell: Cell) -> None:
    cell.begin()
    row = cell.ledger("settle")
    cell.write(insert(t.ledger).values(**{**row, "id": f"{row['id']}.again"}))
    found = dict(cell.audit())
    assert found[f"spent:{TENANT}:{name_of(cell.day)} settled"] == -row["amount"]
    assert {tuple(each["entries"]) for each in cell.incidents()} == {(f"{row['id']}.again",)}
    cell.write(delete(t.ledger).where(t.ledger.c.id == f"{row['id']}.again"))
    assert cell.audit() == []
    cell.write(update(t.ledger).where(t.ledger.c.id == row["id"]).values(amount=row["amount"] + 1))
    assert dict(cell.audit())[f"spent:{TENANT}:{name_of(cell.day)} settled"] == -1
    assert cell.incidents()[-1]["why"] in ("in the ledger without an event", "not what its event says")


def test_the_same_difference_is_one_incident_and_nothing_is_mended(cell: Cell) -> None:
    cell.begin()
    cell.redis.hincrby(f"hg1:tenant:{TENANT}", "held", 4)
    for _ in range(3):
        assert len(cell.audit()) == 1
        cell.record()
    assert len(cell.incidents()) == 1
    assert len(cell.auditor.tick()) == 1
