"""Walking back from what became of a node, on a real record: each step is something that the log has."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, insert

from orchestrator.cli import main
from orchestrator.explain import Execution, explain
from orchestrator.graph import Graph
from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position
from tenancy.errors import Unknown

pytestmark = pytest.mark.unit

KEY = b"a key of the tests"
R = "01j00000000000000000000001"
OTHER = "01j00000000000000000000002"
OF = {"tenant": "acme", "run": R, "gen": 1}
GRAPH = Graph.parse(
    {
        "name": "g",
        "nodes": [
            {"id": "a", "task": "synthetic.noop"},
            {"id": "b", "task": "synthetic.noop", "after": ["a"], "required": False},
            {"id": "c", "task": "synthetic.noop", "after": ["a"]},
            {"id": "d", "task": "synthetic.noop", "after": ["b", "c"]},
            {"id": "e", "task": "synthetic.noop", "after": ["d"]},
        ],
    }
)
LEVEL = {"t": "level.entered", "tenant": "acme", "period": "2026-11-22", "level": "CRITICAL", "entry": 2, "rate_ppm": 934000}
LEVEL |= {"committed": "93400", "limit": "100000", "cause": f"{OTHER}.1.draft.one.3"}
EXECUTION = {"tenant": "acme", "run": OTHER, "gen": 1, "node": "draft.one", "attempt": 3, "day": 3}
CHARGE = [
    {"t": "node.began", **EXECUTION, "worker": "w", "amount": "10000"},
    {"t": "money.settled", **EXECUTION, "reserved": "10000", "amount": "30000", "cats": {"llm": "30000"}, "by": "signal"},
    LEVEL,
]
PLAN = [
    {"type": "skip", "node": "b", "change": "skip", "reason": "9000 micros are pending, and 5000 can be had", "saving": "4000"},
    {"type": "generation", "node": "c", "change": "one", "reason": "9000 micros are pending, and 5000 can be had", "saving": "2000"},
]


def made(**said: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "t": "decision.made",
        **OF,
        "decision": f"{R}.1.1",
        "trigger": "level",
        "action": "degrade",
        "cause": LEVEL["cause"],
    }
    told |= {"reason": "CRITICAL: 93400 micros of 100000", "flags": ["BUDGET_CRITICAL", "DEGRADED_MODE"], "plan": json.dumps(PLAN)}
    return {**told, "inputs": "{}", "inputs_hash": "x", "projected": "120000", "confidence_permille": 500, "observed": 0, **said}


BEGINS = [
    {"t": "run.admitted", **OF, "graph": "g", "total": 5, "estimate": "9000", "floor": "3000", "hold": "5000", "budget": ""},
    {"t": "run.started", **OF},
    {"t": "node.due", **OF, "nodes": ["a"]},
]


class Record:
    """A record that a test tells events to, one after the other."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.engine: Engine = open_engine(f"sqlite:///{home}/headgate.db", writer=True)
        create_tables(self.engine)
        self.told = 0
        with self.engine.begin() as connection:
            connection.execute(insert(t.cursor).values(id=1, epoch=1, seq=0))
            row = {"run_id": R, "generation": 1, "tenant": "acme", "graph_name": "g", "digest": GRAPH.digest, "labels": "{}", "priority": 5}
            connection.execute(insert(t.run), row | {"submitted_at": 0, "cost_micros": 0, "spec": zlib.compress(GRAPH.canonical())})

    def tell(self, *events: dict[str, Any]) -> None:
        entries = []
        for event in events:
            self.told += 1
            entries.append(Entry(Position(1, self.told), json.dumps({"at": 1000 * self.told, **event})))
        apply(self.engine, entries, {}, KEY)

    def why(self, node: str | None = None) -> list[tuple[str, str]]:
        return [(step.kind, step.text) for step in explain(self.engine, R, node)]

    def ended(self, node: str, outcome: str, **said: Any) -> dict[str, Any]:
        return {"t": "node.ended", **OF, "node": node, "outcome": outcome, **said}


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path)


def headgate(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_from_a_skipped_node_to_the_charge_that_tripped_its_level(record: Record) -> None:
    record.tell(*BEGINS, *CHARGE, made(), record.ended("b", "skipped", reason="given up", decision=f"{R}.1.1"))
    record.tell({"t": "decision.applied", **OF, "decision": f"{R}.1.1", "trigger": "level", "modifications": PLAN})
    assert record.why("b") == [
        ("outcome", "node b was skipped: given up"),
        ("decision", f"decision 1 was to skip it, which saves 0.004, because {PLAN[0]['reason']}: CRITICAL: 93400 micros of 100000"),
        ("trigger", "the tenant had entered a level of its budget [BUDGET_CRITICAL, DEGRADED_MODE]"),
        ("level", "tenant acme had entered CRITICAL of 2026-11-22, for the 2nd time: 0.0934 of 0.1 were committed (93.4 %)"),
        ("charge", f"0.03 of llm charged for run {OTHER}: node draft.one, attempt 3, had tripped it"),
    ]
    names = [step.name for step in explain(record.engine, R, "b")]
    assert names == ["b", f"{R}.1.1", "level", "acme.2026-11-22.CRITICAL.2", LEVEL["cause"]]


def test_a_downgraded_node_that_has_not_begun_says_how_it_is_to_run_and_why(record: Record) -> None:
    record.tell(*BEGINS, *CHARGE, made(), {"t": "node.judged", **OF, "nodes": {"c": "one"}, "decision": f"{R}.1.1"})
    kinds = record.why("c")
    assert kinds[0] == ("state", "node c is pending and waits for a; it is to run as its variant 'one'")
    assert kinds[1][1].startswith("decision 1 was to run it as 'one' (generation), which saves 0.002")
    assert ", not applied yet: " in kinds[1][1]
    assert [kind for kind, _ in kinds[2:]] == ["trigger", "level", "charge"]


def test_a_decision_by_the_beat_names_the_level_that_the_tenant_was_at_and_not_one_that_it_had_left(record: Record) -> None:
    left = {**LEVEL, "t": "level.left"}
    warning = {**LEVEL, "level": "WARNING", "entry": 1, "cause": "policy"}
    record.tell(*BEGINS, warning, *CHARGE, left, made(trigger="beat", cause=""), record.ended("b", "skipped", decision=f"{R}.1.1"))
    assert [kind for kind, _ in record.why("b")] == ["outcome", "decision", "trigger", "level", "policy"]
    assert "had entered WARNING of 2026-11-22, for the 1st time" in record.why("b")[3][1]


def test_a_decision_at_admission_says_what_was_held_for_which_estimate(record: Record) -> None:
    record.tell(*BEGINS[:1], {"t": "decision.applied", **OF, "trigger": "admission", "modifications": PLAN}, *BEGINS[1:])
    record.tell(record.ended("b", "skipped", reason="given up at admission"))
    assert record.why("b")[2] == ("trigger", "it was admitted with 0.005 for an estimate of 0.009")


def test_a_refusal_at_the_gate_names_the_node_that_the_money_did_not_cover(record: Record) -> None:
    record.tell(*BEGINS, made(trigger="gate", cause="c"), record.ended("b", "skipped", decision=f"{R}.1.1"))
    assert record.why("b")[2][1] == "the money did not cover node c when it was to start [BUDGET_CRITICAL, DEGRADED_MODE]"


def test_what_is_upstream_failed_is_walked_back_to_the_node_that_failed(record: Record) -> None:
    error = json.dumps({"type": "ValueError", "message": "no such page"})
    record.tell(*BEGINS, record.ended("a", "succeeded", attempt=1), record.ended("c", "failed", attempt=3, error=error))
    record.tell(record.ended("d", "upstream_failed"), record.ended("e", "upstream_failed"))
    assert record.why("e") == [
        ("outcome", "node e did not run: what it needs did not succeed"),
        ("outcome", "node d did not run: what it needs did not succeed"),
        ("outcome", "node c failed after 3 attempts: ValueError: no such page"),
    ]


def test_a_branch_that_was_not_taken_says_by_which_condition(record: Record) -> None:
    record.tell(*BEGINS, record.ended("b", "skipped", reason="not taken: the result of a is 3"))
    assert record.why("b") == [("outcome", "node b is on a branch that was not taken: the result of a is 3")]


def test_what_a_person_cancelled_names_the_person_and_the_reason(record: Record) -> None:
    record.tell(*BEGINS, {"t": "node.cancelling", **OF, "nodes": ["b"], "reason": "too slow", "by": "ann"})
    record.tell(record.ended("b", "cancelled", reason="too slow"))
    assert record.why("b")[1] == ("person", "ann cancelled it: too slow (node.cancelling)")
    record.tell({"t": "run.cancelling", **OF, "reason": "enough", "by": "bob"}, record.ended("c", "cancelled", reason="enough"))
    record.tell({"t": "run.ended", **OF, "outcome": "cancelled", "counts": {}})
    assert record.why("c")[1] == ("person", "bob cancelled it: enough (run.cancelling)")
    assert [kind for kind, _ in record.why()] == ["run", "person"]


def test_what_a_scope_took_with_it_names_the_scope(record: Record) -> None:
    record.tell(*BEGINS, {"t": "scope.cancelled", "scope": "tenant:acme", "reason": "leak", "by": "ann"})
    record.tell({"t": "run.cancelling", **OF, "reason": "leak", "by": "ann"}, record.ended("c", "cancelled", reason="leak"))
    assert record.why("c")[1][1].startswith("ann cancelled it: leak")


def test_a_run_that_its_cost_ended_says_so_and_so_do_its_nodes(record: Record) -> None:
    ends = made(
        action="terminate", plan="[]", reason="what is required needs 7000 micros, and 600 can be had", flags=["TERMINATED_BY_COST"]
    )
    record.tell(*BEGINS, *CHARGE, ends, record.ended("c", "cancelled", reason="its cost"))
    record.tell({"t": "run.ended", **OF, "outcome": "terminated_by_cost", "counts": {}})
    expected = "decision 1 was to end the run: its required nodes cannot be paid for any more, not applied yet: what is required needs 7000"
    assert record.why("c")[1][1].startswith(expected)
    assert [kind for kind, _ in record.why("c")] == [kind if kind != "run" else "outcome" for kind, _ in record.why()]


def test_a_node_that_ran_as_declared_has_nothing_behind_it(record: Record) -> None:
    settled = {"t": "money.settled", **OF, "node": "a", "attempt": 1, "reserved": "500", "day": 3, "amount": "30", "cats": {"llm": "30"}}
    record.tell(*BEGINS, record.ended("a", "succeeded", attempt=1), {**settled, "by": "signal"})
    assert record.why("a") == [("outcome", "node a succeeded as it is declared at attempt 1, for 0.00003")]
    with pytest.raises(Unknown, match="has no node 'z'"):
        record.why("z")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("01j.1.a.2", ("01j", 1, "a", 2)),
        ("01j.2.n0.x.y.13", ("01j", 2, "n0.x.y", 13)),
        ("task.5c-1.0.app.add.1001", ("task.5c-1", 0, "app.add", 1001)),
        ("policy", None),
        ("", None),
        ("01j.1.a", None),
        ("01j.x.a.1", None),
    ],
)
def test_an_execution_reads_as_events_name_it(text: str, expected: Any) -> None:
    found = Execution.parse(text)
    assert found == (None if expected is None else Execution(*expected))
    assert found is None or str(found) == text


def test_the_commands_print_the_decisions_the_sums_and_the_way_back(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.settings import Settings

    monkeypatch.setenv("HEADGATE_HOME", str(record.home))
    Settings.forget()
    record.tell(*BEGINS, *CHARGE, made(), record.ended("b", "skipped", reason="given up", decision=f"{R}.1.1"))
    observed = made(decision=f"{R}.1.2", observed=1)
    record.tell(observed, made(decision=f"{R}.1.3", observed=1, plan=json.dumps(PLAN[1:])))
    listed = headgate("decisions", "--run", R[:26])
    assert listed.exit_code == 0, listed.output
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["decision", f"{R}.1.1", f"{R}.1.2", f"{R}.1.3"]
    assert "degrade (observed)" in listed.stdout
    assert json.loads(headgate("decisions", "--would-have", "--since", "2026-01-01", "--json").stdout) == [], "these events are of 1970"
    (sums,) = json.loads(headgate("decisions", "--would-have", "--json").stdout)
    assert (sums["given_up"], sums["saving_micros"], sums["decisions"]) == ({"generation": 1, "skip": 1}, 6000, 2)
    assert "1 generation, 1 skip" in headgate("decisions", "--would-have").stdout
    lines = headgate("explain", f"{R}/b").stdout.splitlines()
    assert [line.startswith("<- ") for line in lines] == [False, True, True, True, True]
    assert json.loads(headgate("explain", f"{R}/b", "--json").stdout)[0]["kind"] == "outcome"
    assert headgate("explain", f"{R}/").exit_code == 2
    unknown = headgate("explain", f"{R}/zzz")
    assert (unknown.exit_code, "has no node 'zzz'" in unknown.output) == (2, True)
    status = headgate("agent", "status")
    assert status.stdout.startswith("agent     decides\n")
    Settings.forget()
