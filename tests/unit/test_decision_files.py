"""What is kept of decisions beside a run's log: the files, what a replay makes of them, and which objects stay for it."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text

from cost.agent import Inputs, RunView, TenantView, decide_on, solver
from cost.plan import NodeCost, VariantCost
from orchestrator.artifacts.cost_decision import missing_decisions, reader, write_decisions
from orchestrator.artifacts.event_log import write_log
from orchestrator.artifacts.place import run_folder
from orchestrator.artifacts.writer import ArtifactWriter
from orchestrator.collector import Collector
from orchestrator.objects import Directory
from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.replay import replay_file, replay_run
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position

pytestmark = pytest.mark.unit

KEY = b"a key of the tests"
R = "01j00000000000000000000001"
OF = {"tenant": "acme", "run": R, "gen": 1}
SPEC = json.dumps({"name": "g", "nodes": [{"id": "a", "task": "x.y"}, {"id": "b", "required": False, "task": "x.y"}]}).encode()
PENDING = (
    NodeCost("a", True, 10, 30_000, variants=(VariantCost("one", "generation", 10_000, 7),)),
    NodeCost("b", False, 5, 20_000),
)
INPUTS = Inputs(
    TenantView(limit=100_000, committed=92_000, elsewhere=92_000, others=0, active=1, running=1, max_runs=10, waiting=0),
    RunView(run=R, spent=0, before=0, hold=15_000, reserved=0, estimate=50_000, finished=0, room=0, pending=PENDING),
    "level",
    3,
    solver(),
)


def made(inputs: Inputs = INPUTS, said: str | None = None, **other: Any) -> dict[str, Any]:
    """A decision as it is told: by the agent's own code from its inputs."""
    decision = decide_on(inputs)
    told: dict[str, Any] = {"t": "decision.made", **OF, "decision": f"{R}.1.1", "trigger": "level", "action": decision.action}
    told |= {"reason": decision.reason, "flags": list(decision.flags), "inputs_hash": inputs.digest(), "inputs": said or inputs.to_json()}
    told |= {"plan": json.dumps(decision.modifications()), "projected": str(decision.projected), "policy_version": 3, "cause": "x.1.a.1"}
    told |= {"confidence_permille": decision.confidence_permille, "concurrency_percent": decision.concurrency_percent, "observed": 0}
    return {**told, **other}


def applied(**other: Any) -> dict[str, Any]:
    return {
        "t": "decision.applied",
        **OF,
        "decision": f"{R}.1.1",
        "trigger": "level",
        "modifications": decide_on(INPUTS).modifications(),
        **other,
    }


def life(*decides: dict[str, Any]) -> list[dict[str, Any]]:
    """A run of two nodes whose agent decides before they begin."""
    asked = {"request": "q", "digest": hashlib.sha256(SPEC).hexdigest(), "graph": "g", "priority": 5, "labels": {}, "key": None}
    began = {"t": "node.began", **OF, "node": "a", "attempt": 1, "inc": "i", "worker": "w", "amount": "10000", "day": 3, "verdict": "one"}
    settled = {"t": "money.settled", **OF, "node": "a", "attempt": 1, "reserved": "10000", "day": 3, "by": "signal", "amount": "10000"}
    return [
        {"t": "request.submit", **OF, **asked, "budget": None, "learned": "", "strict": 0, "full": 0},
        {"t": "run.admitted", **OF, "graph": "g", "total": 2, "estimate": "50000", "floor": "10000", "hold": "15000", "budget": ""},
        {"t": "run.started", **OF, "degraded": False},
        *decides,
        {"t": "node.ended", **OF, "node": "b", "outcome": "skipped", "reason": "given up", "decision": f"{R}.1.1"},
        began,
        {"t": "node.ended", **OF, "node": "a", "attempt": 1, "outcome": "succeeded", "result": "7"},
        {**settled, "cats": {"llm": "10000"}},
        {"t": "run.ended", **OF, "outcome": "degraded", "cost": "10000", "released": "5000", "counts": {"succeeded": 1, "skipped": 1}},
    ]


def recorded(directory: Path, events: list[dict[str, Any]]) -> Engine:
    engine = open_engine(f"sqlite:///{directory}/record.db", writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=1, seq=0))
        row = {
            "run_id": R,
            "generation": 1,
            "tenant": "acme",
            "graph_name": "g",
            "digest": hashlib.sha256(SPEC).hexdigest(),
            "labels": "{}",
        }
        connection.execute(insert(t.run), row | {"priority": 5, "submitted_at": 1000, "cost_micros": 0, "spec": zlib.compress(SPEC)})
        connection.execute(insert(t.request), {"id": "q", "at": 0, "answer": "{}"})
    apply(engine, [Entry(Position(1, at), json.dumps({"at": 999 + at, **event})) for at, event in enumerate(events, 1)], {}, KEY)
    return engine


@pytest.fixture
def objects(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "results")


def replayed(engine: Engine, objects: Directory | None = None) -> tuple[str, ...]:
    return replay_run(engine, R, 1, KEY, objects).differences


def test_a_stored_decision_follows_from_its_stored_inputs(tmp_path: Path) -> None:
    assert decide_on(INPUTS).action == "degrade"
    engine = recorded(tmp_path, life(made(), applied()))
    assert replayed(engine) == ()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"action": "terminate"}, '"action": "terminate"'),
        ({"reason": "because"}, '"reason": "because"'),
        ({"projected": "1"}, '"projected": 1'),
        ({"flags": []}, '"flags": []'),
        ({"plan": "[]"}, '"plan": []'),
        ({"confidence_permille": 999}, '"confidence_permille": 999'),
        ({"inputs_hash": "00"}, "was made from inputs of SHA-256 00"),
    ],
)
def test_a_decision_that_its_inputs_do_not_lead_to_is_named(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    found = replayed(recorded(tmp_path, life(made(**other), applied())))
    assert any(line.startswith("event 1-4: ") and said in line for line in found), found


def test_what_was_applied_must_have_been_planned_and_not_only_observed(tmp_path: Path) -> None:
    other = {"type": "skip", "node": "a", "change": "skip", "reason": "", "saving": "5"}
    (found,) = replayed(recorded(tmp_path, life(made(), applied(modifications=[other]))))
    assert "did not plan" in found
    (tmp_path / "2").mkdir()
    (found,) = replayed(recorded(tmp_path / "2", life(made(observed=1), applied())))
    assert found.endswith("which was only observed")
    (tmp_path / "3").mkdir()
    (found,) = replayed(recorded(tmp_path / "3", life(applied())))
    assert found.endswith("which was not made before")


def test_large_inputs_are_read_from_their_object_and_what_another_solver_planned_is_not_judged(tmp_path: Path, objects: Directory) -> None:
    objects.write(f"{R}/1/decision.1.json", INPUTS.to_json().encode())
    engine = recorded(tmp_path, life(made(said=f"@{R}/1/decision.1.json", reason="because"), applied()))
    (found,) = replayed(engine, objects)
    assert '"reason": "because"' in found
    assert replayed(engine) == (), "its inputs are not to be had"
    (tmp_path / "2").mkdir()
    elsewhere = Inputs(INPUTS.tenant, INPUTS.run, "level", 3, "another/7")
    assert replayed(recorded(tmp_path / "2", life(made(elsewhere, reason="because"), applied()))) == ()


def test_the_folder_of_a_run_has_its_latest_decision_and_all_of_them_and_replays_alone(tmp_path: Path, objects: Directory) -> None:
    objects.write(f"{R}/1/decision.1.json", INPUTS.to_json().encode())
    engine = recorded(tmp_path, life(made(said=f"@{R}/1/decision.1.json"), applied(), made(decision=f"{R}.1.2", observed=1)))
    path = write_decisions(engine, tmp_path, R, reader(objects))
    assert path == run_folder(tmp_path, "g", R) / "cost_decision.json"
    latest = json.loads(path.read_text())
    assert (latest["decision"], latest["observed"], latest["applied_at"]) == (f"{R}.1.2", True, None)
    first, second = (json.loads(line) for line in path.with_name("cost_decisions.jsonl").read_text().splitlines())
    assert (first["exposure"], first["remaining"], first["rate"]) == (107_000, 8_000, 0.92)
    decision = decide_on(INPUTS)
    assert first["projection"] == {"current": 92_000, "projected": decision.projected, "confidence": decision.confidence_permille / 1000}
    assert (first["action"], first["plan"], first["applied"]) == ("degrade", decision.modifications(), decision.modifications())
    assert (first["flags"], first["concurrency_factor"], first["policy_version"]) == (list(decision.flags), 0.1, 3)
    assert (first["inputs_hash"], first["inputs"], first["breakdown"], first["decided_at"]) == (
        INPUTS.digest(),
        INPUTS.to_json(),
        {},
        1.003,
    )
    assert {**second, "inputs": None} == {**latest, "inputs": None}
    assert write_log(engine, tmp_path, KEY, R, 1) is not None
    assert replay_file(path.with_name("events.jsonl"), KEY).differences == ()
    forged = path.with_name("cost_decisions.jsonl")
    forged.write_text(forged.read_text().replace("92000", "12000"))
    (found,) = replay_file(path.with_name("events.jsonl"), KEY).differences
    assert "was made from inputs of SHA-256" in found


def test_what_a_crash_kept_back_is_written_at_the_next_start_and_what_is_there_is_left_alone(tmp_path: Path) -> None:
    engine = recorded(tmp_path, life(made(), applied()))
    assert missing_decisions(engine, tmp_path) == [R]
    writer = ArtifactWriter(engine, tmp_path, KEY)
    writer.catch_up()
    writer.close()
    path = run_folder(tmp_path, "g", R) / "cost_decision.json"
    assert json.loads(path.read_text())["decision"] == f"{R}.1.1"
    assert missing_decisions(engine, tmp_path) == []
    path.write_text("{half")
    assert missing_decisions(engine, tmp_path) == [R]
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []


def test_a_run_without_decisions_has_no_such_file(tmp_path: Path) -> None:
    engine = recorded(tmp_path, life())
    assert write_decisions(engine, tmp_path, R, reader(None)) is None
    assert not run_folder(tmp_path, "g", R).exists()


@pytest.fixture
def kept(tmp_path: Path, objects: Directory) -> Iterator[Collector]:
    objects.write(f"{R}/1/decision.1.json", INPUTS.to_json().encode())
    objects.write(f"{R}/1/decision.0.json", b"{}")
    engine = recorded(tmp_path, life(made(said=f"@{R}/1/decision.1.json"), applied()))
    with engine.begin() as connection:
        connection.execute(text("UPDATE run SET finished_at = 1000000"))
    yield Collector(objects, engine, 100.0)
    engine.dispose()


def test_inputs_stay_as_long_as_results_do_and_those_that_no_decision_names_go(kept: Collector, objects: Directory) -> None:
    assert kept.collect(1_050_000) == 1
    assert objects.names(R) == [f"{R}/1/decision.1.json"]
    assert kept.collect(1_200_000) == 1
    assert objects.names(R) == []
