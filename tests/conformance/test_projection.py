from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select

from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry, parts, project
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position
from orchestrator.store.read import get_nodes, get_run, run_cost

pytestmark = pytest.mark.both_records

KEY = b"a key of the tests"
RUN = {"tenant": "acme", "run": "r1", "gen": 1}


def entries(*events: dict[str, Any], epoch: int = 1, first: int = 1) -> list[Entry]:
    return [Entry(Position(epoch, first + at), json.dumps({"at": 1000 + at, **event})) for at, event in enumerate(events)]


def life(node: str = "a") -> list[dict[str, Any]]:
    """The events of a run of one node that fails once and then succeeds."""
    began = {"t": "node.began", **RUN, "node": node, "inc": "i", "worker": "w1", "amount": "500", "day": 3, "verdict": ""}
    settled = {"t": "money.settled", **RUN, "node": node, "reserved": "500", "day": 3, "by": "signal", "kind": "settle"}
    return [
        {"t": "run.admitted", **RUN, "graph": "g", "total": 1, "estimate": "500", "floor": "400", "hold": "500", "budget": ""},
        {"t": "run.started", **RUN},
        {"t": "node.due", **RUN, "nodes": [node]},
        {**began, "attempt": 1},
        {"t": "node.retry", **RUN, "node": node, "attempt": 1, "outcome": "failed", "error": '{"type": "Boom"}', "delay_ms": 1},
        {**settled, "attempt": 1, "amount": "30", "cats": {"llm": "20", "compute": "10"}},
        {**began, "attempt": 2},
        {"t": "node.ended", **RUN, "node": node, "attempt": 2, "outcome": "succeeded", "result": "7"},
        {**settled, "attempt": 2, "amount": "40", "cats": {"llm": "40"}},
        {"t": "run.ended", **RUN, "outcome": "succeeded", "cost": "70", "released": "430", "counts": {"succeeded": 1}},
    ]


@pytest.fixture
def engine(database_url: str) -> Engine:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=0, seq=0))
    return engine


def rows(engine: Engine, table: Any) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()]


def test_a_batch_has_one_change_for_each_run_and_node_however_many_events_they_have() -> None:
    changes = project(entries(*life()))
    assert len(changes.events) == 10
    assert list(changes.nodes) == [("r1", 1, "a")]
    node = changes.nodes["r1", 1, "a"]
    assert (node["state"], node["outcome"], node["attempt"], node["fails"], node["cost_micros"]) == ("ended", "succeeded", 2, 1, 70)
    assert (node["queued_at"], node["started_at"], node["finished_at"]) == (1002, 1006, 1007)
    assert changes.ended == ["r1.1"]


def test_the_ledger_has_one_entry_for_each_execution_kind_and_category() -> None:
    ids = [entry["id"] for entry in project(entries(*life())).ledger]
    assert ids == [
        "r1.1.hold",
        "r1.1.a.1.reserve",
        "r1.1.a.1.settle.compute",
        "r1.1.a.1.settle.llm",
        "r1.1.a.2.reserve",
        "r1.1.a.2.settle.llm",
        "r1.1.release",
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_however_the_log_is_cut_into_batches_the_record_is_the_same(engine: Engine, tmp_path: Path, size: int) -> None:
    log = entries(*life())
    for first in range(0, len(log), size):
        apply(engine, log[first : first + size], {}, KEY)
    run, (node,) = get_run(engine, "r1"), get_nodes(engine, "r1")
    assert (run.status, run.outcome, run.cost_micros, run.counts) == ("ended", "succeeded", 70, {"succeeded": 1})
    assert (run.hold, run.budget, run.started_at) == (500, None, 1.001)
    assert (node.state, node.outcome, node.attempt, node.fails, node.worker) == ("ended", "succeeded", 2, 1, "w1")
    assert (node.cost, node.cost_micros, node.result, node.error) == ({"llm": 60, "compute": 10}, 70, "7", None)
    assert (node.queued_at, node.started_at) == (1.002, 1.006)
    assert run_cost(engine, "r1") == {"compute": 10, "llm": 60}


def test_a_batch_that_is_read_again_changes_nothing(engine: Engine) -> None:
    log = entries(*life())
    apply(engine, log[:6], {}, KEY)
    before = rows(engine, t.node), rows(engine, t.ledger), rows(engine, t.event)
    again = apply(engine, log[:6], {}, KEY)
    assert (again.events, again.cursor) == (0, Position(1, 6))
    assert (rows(engine, t.node), rows(engine, t.ledger), rows(engine, t.event)) == before
    assert apply(engine, log, {}, KEY).events == 4
    assert rows(engine, t.incident) == []


def test_an_event_with_a_recorded_id_and_another_content_is_an_incident_and_is_not_written(engine: Engine) -> None:
    log = entries(*life())
    apply(engine, log, {}, KEY)
    other = Entry(log[2].position, log[2].text.replace('"a"', '"b"'))
    apply(engine, [other], {}, KEY)
    (incident,) = rows(engine, t.incident)
    assert incident["kind"] == "conflict"
    assert json.loads(incident["detail"]) == {"stored": log[2].text, "found": other.text}
    assert [row["data"] for row in rows(engine, t.event)] == [entry.text for entry in log]


def test_a_hole_in_the_log_is_an_incident(engine: Engine) -> None:
    log = entries(*life())
    apply(engine, log[:3] + log[5:], {}, KEY)
    apply(engine, entries({"t": "epoch.opened", "epoch": 2, "server": "s", "rebuilt": 0, "after": "1-11"}, epoch=2), {}, KEY)
    assert [(row["kind"], row["id"]) for row in rows(engine, t.incident)] == [("gap", "gap.1-6"), ("gap", "gap.2-1")]


def test_a_hole_at_the_beginning_of_a_batch_is_an_incident(engine: Engine) -> None:
    log = entries(*life())
    apply(engine, log[:3], {}, KEY)
    apply(engine, log[5:], {}, KEY)
    assert [row["id"] for row in rows(engine, t.incident)] == ["gap.1-6"]


def test_an_event_that_cannot_be_read_is_kept_and_does_not_stop_the_others(engine: Engine) -> None:
    bad = [Entry(Position(1, 1), "no json"), Entry(Position(1, 2), '{"t": "node.ended", "run": "r1", "at": 5}')]
    assert apply(engine, bad + entries(*life(), first=3), {}, KEY).events == 12
    assert {row["id"] for row in rows(engine, t.incident)} == {"malformed.1-1", "malformed.1-2"}
    assert get_run(engine, "r1").status == "ended"


def test_an_unknown_type_is_kept_as_an_event_and_changes_nothing_else(engine: Engine) -> None:
    apply(engine, entries({"t": "node.sang", **RUN, "node": "a"}), {}, KEY)
    assert [row["type"] for row in rows(engine, t.event)] == ["node.sang"]
    assert rows(engine, t.node) == []


def test_a_rebuilt_epoch_voids_what_was_open_and_makes_running_nodes_due(engine: Engine) -> None:
    apply(engine, entries(*life()[:7]), {}, KEY)
    opened = {"t": "epoch.opened", "epoch": 2, "server": "s", "rebuilt": 1, "after": "1-7"}
    began = {"t": "node.began", **RUN, "node": "a", "attempt": 101, "worker": "w2", "amount": "500", "day": 3, "verdict": ""}
    apply(engine, entries(opened, began, epoch=2), {}, KEY)
    kinds = [(row["attempt"], row["kind"]) for row in rows(engine, t.ledger)]
    assert sorted(kinds) == [(0, "hold"), (1, "reserve"), (1, "settle"), (1, "settle"), (2, "expire"), (2, "reserve"), (101, "reserve")]
    assert [row["by"] for row in rows(engine, t.ledger) if row["kind"] == "expire"] == ["recovery"]
    assert [(node.state, node.attempt, node.worker) for node in get_nodes(engine, "r1")] == [("running", 101, "w2")]
    assert rows(engine, t.incident) == []


def test_a_batch_is_split_before_an_epoch_is_opened() -> None:
    opened = {"t": "epoch.opened", "epoch": 1, "server": "s", "rebuilt": 0}
    assert [len(part) for part in parts(entries(opened, *life()[:2], opened, *life()[:1]))] == [3, 2]


def test_what_a_superseded_attempt_spent_is_charged_to_the_run_and_marked_as_waste(engine: Engine) -> None:
    late = {"t": "money.settled", **RUN, "node": "a", "attempt": 1, "reserved": "500", "day": 3, "by": "signal", "kind": "waste"}
    apply(engine, entries(*life(), {**late, "amount": "5", "cats": {"llm": "5"}}), {}, KEY)
    assert get_run(engine, "r1").cost_micros == 75
    with engine.connect() as connection:
        waste = select(func.sum(t.ledger.c.amount)).where(t.ledger.c.kind == "waste")
        assert connection.execute(waste).scalar() == 5


def test_what_was_reserved_on_two_days_is_charged_on_both(engine: Engine) -> None:
    execution = {**RUN, "node": "a", "attempt": 1}
    parts = [{"day": 20_000, "reserved": "80", "cats": {"llm": "80"}}, {"day": 20_001, "reserved": "50", "cats": {"llm": "10"}}]
    apply(
        engine,
        entries(
            {"t": "run.admitted", **RUN, "graph": "g", "total": 1, "estimate": "80", "floor": "80", "hold": "100", "budget": ""},
            {"t": "node.began", **execution, "amount": "80", "to_hold": "-80", "day": 20_000, "verdict": ""},
            {"t": "money.extended", **execution, "amount": "50", "to_hold": "-20", "day": 20_001},
            {"t": "money.settled", **execution, "amount": "90", "cats": {"llm": "90"}, "day": 20_000, "kind": "settle", "reserved": "130",
             "to_hold": "40", "by": "signal", "price_version": "p3", "parts": parts},
            {"t": "run.ended", **RUN, "outcome": "succeeded", "released": "40"},
        ),
        {},
        KEY,
    )  # fmt: skip
    found = {row["id"]: row for row in rows(engine, t.ledger)}
    assert {name: (row["period"], row["amount"], row["released"], row["to_hold"]) for name, row in found.items()} == {
        "r1.1.hold": ("1970-01-01", 100, 0, 100),
        "r1.1.a.1.reserve": ("2024-10-04", 80, 0, -80),
        "r1.1.a.1.extend.1-3": ("2024-10-05", 50, 0, -20),
        "r1.1.a.1.settle.llm": ("2024-10-04", 80, 80, 40),
        "r1.1.a.1.settle.llm.2024-10-05": ("2024-10-05", 10, 50, 0),
        "r1.1.release": ("1970-01-01", 40, 0, -40),
    }
    assert sum(row["to_hold"] for row in found.values()) == 0
    assert [row["price_version"] for row in found.values() if row["kind"] == "settle"] == ["p3", "p3"]
    assert {row["kind"]: row["cause"] for row in found.values()}["release"] == "ended"
