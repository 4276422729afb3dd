"""Decisions of the cost agent in the record: what the events of the agent make of rows, however the log is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select

from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.store import tables as t
from orchestrator.store.decisions import Change, get_decision, last_numbers, list_decisions, open_decisions
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position
from tenancy.errors import Unknown

pytestmark = pytest.mark.both_records


KEY = b"a key of the tests"
RUN = {"tenant": "acme", "run": "r1", "gen": 1}
SKIP = {"type": "skip", "node": "b", "change": "skip", "reason": "everything would cost 9 micros, and 5 are available", "saving": "4"}
SMALL = {"type": "generation", "node": "a", "change": "one", "reason": "everything would cost 9 micros, and 5 are available", "saving": "2"}


def made(number: int = 1, **fields: Any) -> dict[str, Any]:
    """A decision as the script that stores it tells it."""
    told: dict[str, Any] = {"t": "decision.made", **RUN, "decision": f"r1.1.{number}", "trigger": "beat", "action": "degrade"}
    told |= {"reason": "projection: 12 micros of 10", "flags": ["BUDGET_ALERT", "DEGRADED_MODE"], "inputs_hash": "ab", "inputs": '{"é":1}'}
    told |= {"plan": json.dumps([SKIP, SMALL]), "projected": "12", "confidence_permille": 500, "concurrency_percent": 10, "observed": 0}
    return told | {"policy_version": 3, "cause": "r1.1.z.1", **fields}


def log(*events: dict[str, Any], first: int = 1) -> list[Entry]:
    return [Entry(Position(1, first + at), json.dumps({"at": 1000 + at, **event}, ensure_ascii=False)) for at, event in enumerate(events)]


LIFE = (
    {"t": "run.admitted", **RUN, "graph": "g", "total": 2, "estimate": "9", "floor": "3", "hold": "9", "budget": ""},
    {"t": "run.started", **RUN},
    {"t": "node.due", **RUN, "nodes": ["a", "b"]},
    made(),
    {"t": "node.judged", **RUN, "nodes": {"a": "one"}, "decision": "r1.1.1"},
    {"t": "node.ended", **RUN, "node": "b", "outcome": "skipped", "reason": "given up", "decision": "r1.1.1"},
    {"t": "decision.applied", **RUN, "trigger": "beat", "decision": "r1.1.1", "modifications": [SKIP, SMALL]},
    made(2, action="restore", plan=json.dumps([{**SMALL, "type": "restore", "change": "as_is", "saving": "-2"}])),
    {"t": "node.judged", **RUN, "nodes": {"a": ""}, "decision": "r1.1.2"},
)


@pytest.fixture
def engine(database_url: str) -> Engine:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=0, seq=0))
    return engine


def nodes(engine: Engine) -> dict[str, tuple[str | None, str | None]]:
    with engine.connect() as connection:
        return {row.node_id: (row.verdict, row.decision) for row in connection.execute(select(t.node))}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_however_the_log_is_cut_each_decision_has_one_row_and_its_nodes_name_it(engine: Engine, size: int) -> None:
    entries = log(*LIFE)
    for first in range(0, len(entries), size):
        apply(engine, entries[first : first + size], {}, KEY)
    one, two = list_decisions(engine, run="r1")
    assert (one.id, one.trigger, one.action, one.number, one.at) == ("r1.1.1", "beat", "degrade", 1, 1.003)
    assert (one.flags, one.inputs, one.inputs_hash, one.policy_version) == (("BUDGET_ALERT", "DEGRADED_MODE"), '{"é":1}', "ab", 3)
    assert (one.projected, one.confidence_permille, one.concurrency_percent, one.cause) == (12, 500, 10, "r1.1.z.1")
    assert [(change.type, change.node, change.change, change.saving) for change in one.plan] == [
        ("skip", "b", "skip", 4),
        ("generation", "a", "one", 2),
    ]
    assert (one.applied, one.applied_at, one.saving) == (one.plan, 1.006, 6)
    assert (two.applied, two.applied_at, two.saving) == (None, None, -2)
    assert nodes(engine) == {"a": ("", "r1.1.2"), "b": (None, "r1.1.1")}, "a runs as it is again, and its last decision says so"
    with engine.connect() as connection:
        assert connection.execute(select(t.incident)).all() == []


def test_a_decision_told_twice_is_one_and_what_was_applied_first_stands(engine: Engine) -> None:
    apply(engine, log(*LIFE), {}, KEY)
    again = {"t": "decision.applied", **RUN, "trigger": "beat", "decision": "r1.1.1", "modifications": []}
    apply(engine, log(made(reason="another"), again, first=len(LIFE) + 1), {}, KEY)
    one, two = list_decisions(engine)
    assert (one.reason, len(one.applied or ()), two.number) == ("projection: 12 micros of 10", 2, 2)


def test_what_was_decided_and_not_applied_is_open_until_the_run_ends(engine: Engine) -> None:
    apply(engine, log(*LIFE, made(3, observed=1, action="degrade")), {}, KEY)
    with engine.connect() as connection:
        assert [row["id"] for row in open_decisions(connection)] == ["r1.1.2"], "what is only observed is never applied"
        assert last_numbers(connection) == {("r1", 1): 3}
    apply(engine, log({"t": "run.ended", **RUN, "outcome": "degraded", "counts": {}}, first=len(LIFE) + 2), {}, KEY)
    with engine.connect() as connection:
        assert (open_decisions(connection), last_numbers(connection)) == ([], {})


def test_decisions_are_found_by_run_tenant_time_and_by_whether_they_were_only_observed(engine: Engine) -> None:
    other = {**made(1, observed=1), "run": "r2", "tenant": "birch", "decision": "r2.1.1"}
    apply(engine, log(*LIFE, other), {}, KEY)
    found = lambda **wanted: [each.id for each in list_decisions(engine, **wanted)]  # noqa: E731
    assert found() == ["r1.1.1", "r1.1.2", "r2.1.1"]
    assert (found(tenant="birch"), found(run="r1", limit=1), found(observed=True)) == (["r2.1.1"], ["r1.1.2"], ["r2.1.1"])
    assert (found(since=1.005), found(generation=2)) == (["r1.1.2", "r2.1.1"], [])
    with pytest.raises(Unknown, match=r"no decision 'r9\.1\.1'"):
        get_decision(engine, "r9.1.1")


def test_a_decision_at_admission_of_an_older_version_is_a_decision_too(engine: Engine) -> None:
    apply(engine, log(LIFE[0], {"t": "decision.applied", **RUN, "trigger": "admission", "modifications": [SKIP]}), {}, KEY)
    (found,) = list_decisions(engine, run="r1")
    assert (found.id, found.trigger, found.action, found.inputs_hash) == ("r1.1.0", "admission", "degrade", "")
    assert found.plan == found.applied == (Change("skip", "b", "skip", SKIP["reason"], 4),)
    assert nodes(engine) == {"b": (None, "r1.1.0")}


def test_a_decision_that_does_not_read_is_an_incident_and_stops_nobody(engine: Engine) -> None:
    apply(engine, log({"t": "decision.made", **RUN, "decision": "nonsense"}, *LIFE), {}, KEY)
    assert len(list_decisions(engine)) == 2
    with engine.connect() as connection:
        assert [row.kind for row in connection.execute(select(t.incident))] == ["malformed"]
