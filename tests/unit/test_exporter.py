"""Files about runs that have ended: each once wherever the writer dies, later where the disk takes nothing, never outside the folder."""

from __future__ import annotations

import json
import os
import stat
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from orchestrator.artifacts import exporter as module
from orchestrator.artifacts import place
from orchestrator.artifacts.attempts import Attempt, attempts_of, most_at_once
from orchestrator.artifacts.exporter import Exporter
from orchestrator.artifacts.marker import NAME, Marker
from orchestrator.artifacts.place import cost_report, platform_report
from orchestrator.artifacts.pruning import Pruning
from orchestrator.artifacts.run_files import RunFiles, capacity_at
from orchestrator.artifacts.schema import schemas
from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import START, Position

pytestmark = pytest.mark.unit

KEY = b"a key of the tests"
NOW = 1_800_000_000_000
HOSTILE = (
    "../../../etc",
    "..",
    ".",
    "",
    "a/b",
    "a\x00b",
    "/etc/passwd",
    "C:\\x",
    "%2e%2e",
    ".hidden",
    "-rf",
    "é",
    "\u0065\u0301",
    "x" * 500,
)


class Nobody:
    """Stands where a link is, for passes that look at no queue."""


def life(run: str, nodes: int, graph: str = "g", tenant: str = "acme", inc: str = "host.1.ab") -> list[dict[str, Any]]:
    of = {"tenant": tenant, "run": run, "gen": 1}
    events: list[dict[str, Any]] = [{"t": "run.admitted", **of, "graph": graph, "total": nodes, "estimate": "1", "floor": "1", "hold": "1"}]
    for at in range(nodes):
        execution = {**of, "node": f"n{at}", "attempt": 1}
        events.append({"t": "node.began", **execution, "inc": inc, "worker": "w", "amount": "0", "day": 3})
        events.append({"t": "node.ended", **execution, "outcome": "succeeded", "result": str(at)})
    return [*events, {"t": "run.ended", **of, "outcome": "succeeded", "counts": {"succeeded": nodes}}]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def root(settings: Settings) -> Path:
    return settings.resolved_artifacts_dir()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = open_engine(f"sqlite:///{tmp_path}/record.db", writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=1, seq=0))
        connection.execute(insert(t.tenant), {"id": "acme", "name": "acme", "status": "active", "currency": "EUR", "created_at": 0})
        connection.execute(insert(t.policy), {"tenant": "acme", "version": 1, "fields": "{}", "at": 0})
    return engine


def record(engine: Engine, events: list[dict[str, Any]], after: int = 0) -> int:
    entries = [Entry(Position(1, at), json.dumps({"at": NOW + at, **event})) for at, event in enumerate(events, after + 1)]
    apply(engine, entries, {}, KEY)
    return after + len(events)


def exporter(engine: Engine, settings: Settings) -> Exporter:
    return Exporter(Nobody(), engine, settings, clock=lambda: NOW + 1_000)  # type: ignore[arg-type]


def write(engine: Engine, settings: Settings, patience_s: float = 60.0) -> int:
    return exporter(engine, settings).write_runs(time.monotonic() + patience_s)


def traced(root: Path) -> list[str]:
    path = place.trace(root, "host.1.ab")
    return [json.loads(line)["task_id"] for line in path.read_text().splitlines()] if path.exists() else []


def test_schemas_on_disk_are_those_of_the_models() -> None:
    folder = Path(__file__).parents[2] / "docs" / "schemas"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {f"{name}.schema.json": text for name, text in schemas().items()}


def test_a_run_is_written_once_and_the_marker_goes_on(engine: Engine, settings: Settings, root: Path) -> None:
    last = record(engine, life("r1", 3))
    assert write(engine, settings) == 1
    assert Marker.read(root).position == (1, last)
    assert json.loads(place.concurrency_report(root, "r1", 1).read_text())["metrics"]["completed"] == 3
    assert json.loads(place.task_result(root, "r1.1.n2").read_text())["result"] == 2
    assert write(engine, settings) == 0
    record(engine, life("r2", 1), last)
    assert write(engine, settings) == 1
    assert traced(root) == ["r1.1.n0", "r1.1.n1", "r1.1.n2", "r2.1.n0"]
    with exporter(engine, settings)._alone() as first, exporter(engine, settings)._alone() as second:
        assert (first, second) == (True, False), "one writes at a time"
    assert all(stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600) for path in [root, *root.rglob("*")])


class Died(Exception):
    """The process ended here."""


@pytest.mark.parametrize("where", ["after the mark", "after some lines", "after the results", "before the last mark"])
def test_whoever_died_halfway_leaves_no_line_twice_and_none_out(
    engine: Engine, settings: Settings, root: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = record(engine, life("r1", 2))
    write(engine, settings)
    last = record(engine, life("r2", 2), last)
    record(engine, life("r3", 2), last)

    def die(*_: Any) -> None:
        raise Died

    adding = module.add_lines

    def add_some(path: Path, lines: list[str]) -> None:
        adding(path, [*lines[:1], lines[1][:20]])  # half a line
        raise Died

    with monkeypatch.context() as patch:
        if where == "after the mark":
            patch.setattr(module, "add_lines", die)
        elif where == "after some lines":
            patch.setattr(module, "add_lines", add_some)
        elif where == "after the results":
            patch.setattr(RunFiles, "write_report", die)
        else:
            patch.setattr(Marker, "done", die)
        with pytest.raises(Died):
            write(engine, settings)
    assert write(engine, settings) == 2
    assert traced(root) == [f"r{run}.1.n{node}" for run in (1, 2, 3) for node in (0, 1)]
    assert all(place.concurrency_report(root, run, 1).exists() for run in ("r1", "r2", "r3"))


def test_a_folder_that_cannot_be_written_is_written_later(engine: Engine, tmp_path: Path) -> None:
    record(engine, life("r1", 2))
    (tmp_path / "disk").mkdir()
    settings = Settings(home=tmp_path / "home", artifacts_dir=tmp_path / "disk" / "artifacts")
    (tmp_path / "disk" / "artifacts").write_text("not a folder")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        write(engine, settings)
    (tmp_path / "disk" / "artifacts").unlink()
    assert write(engine, settings) == 1
    assert traced(tmp_path / "disk" / "artifacts") == ["r1.1.n0", "r1.1.n1"]


def test_a_pass_ends_in_time_and_the_next_one_goes_on(engine: Engine, settings: Settings, root: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "RUNS_AT_ONCE", 1)
    last = 0
    for number in range(3):
        last = record(engine, life(f"r{number}", 1), last)
    assert [write(engine, settings, 0.0) for _ in range(4)] == [1, 1, 1, 0]
    assert len(traced(root)) == 3


def test_a_lost_marker_repeats_nothing_and_another_record_is_written_from_its_beginning(
    engine: Engine, settings: Settings, root: Path
) -> None:
    record(engine, life("r1", 1))
    write(engine, settings)
    (root / NAME).unlink()
    assert write(engine, settings) == 0
    assert traced(root) == ["r1.1.n0"]
    Marker(root, Position(7, 7)).write()
    place.concurrency_report(root, "r1", 1).unlink()
    assert write(engine, settings) == 1


def test_a_run_of_which_nothing_can_be_made_keeps_back_no_other(engine: Engine, settings: Settings, root: Path) -> None:
    last = record(engine, life("odd", 1, tenant="nobody"))
    record(engine, life("r1", 1), last)
    assert write(engine, settings) == 1
    assert place.concurrency_report(root, "r1", 1).exists()


def test_above_a_thousand_nodes_results_are_lines_of_one_file(engine: Engine, settings: Settings, root: Path) -> None:
    last = record(engine, life("small", 1_000))
    record(engine, life("large", 1_001), last)
    assert write(engine, settings) == 2
    lines = place.task_results(root, "large", 1).read_text().splitlines()
    assert sorted(json.loads(line)["result"] for line in lines) == list(range(1_001))
    assert len(list((root / place.EXECUTION).glob("task_result_*"))) == 1_000


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "artifacts"
    for path, depth in [
        (place.event_log(root, name, name, 1), 3),
        (place.concurrency_report(root, name, 2), 2),
        (place.task_result(root, name), 2),
        (place.task_results(root, name, 1), 2),
        (place.trace(root, name), 2),
        (place.worker_summary(root, name), 2),
        (place.budget_usage(root, name), 3),
        (place.cost_report(root, name, name), 3),
        (place.platform_report(root, name), 2),
    ]:
        assert len(Path(os.path.normpath(path)).relative_to(root).parts) == depth
        assert all(len(part) < 256 and "\0" not in part for part in path.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        assert path.resolve().is_relative_to(root.resolve())


def test_names_that_differ_have_files_that_differ() -> None:
    assert unicodedata.normalize("NFC", HOSTILE[-2]) == HOSTILE[-3], "the same to the eye"
    assert len({place.part(name) for name in HOSTILE}) == len(HOSTILE)
    assert place.part("x" * 400) != place.part("x" * 401)
    root = Path("/r")
    ours = {root / each for each in (place.EXECUTION, place.TENANTS, place.REPORTS)}
    assert not ours & {place.run_folder(root, name, "r").parent for name in ("execution", "tenants", "reports")}
    assert place.run_folder(root, "Tenants", "r").parent.name == "%54enants", "some disks keep no case"


def test_a_hostile_graph_and_run_on_record_are_written_inside(engine: Engine, settings: Settings, root: Path) -> None:
    record(engine, life("../../up", 1, graph="../../out", inc="../../w"))
    assert write(engine, settings) == 1
    home = root.parent
    assert {path.name for path in home.iterdir()} == {"artifacts"}
    assert {path.name for path in root.iterdir()} == {NAME, "execution"}


def test_what_is_old_goes_and_what_is_about_now_stays(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    old = [root / "g" / "r1" / "events.jsonl", root / "execution" / "task_result_a.json", root / "execution" / ".x.json.1.2.new"]
    kept = [root / "execution" / "queue_state.json", root / "tenants" / "acme" / "budget_usage.json", root / NAME]
    reports = [cost_report(root, "acme", "2026-11-22"), platform_report(root, "2026-11", "html")]  # kept for as long as they are on record
    fresh = root / "g" / "r2" / "events.jsonl"
    for path in (*old, *kept, *reports, fresh):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (1_000, 1_000) if path != fresh else (9_000, 9_000))
    pruning = Pruning(root, 3_600.0, 86_400.0)
    assert pruning.go_on(10_000.0) == 3
    assert {path for path in root.rglob("*") if path.is_file()} == {*kept, *reports, fresh}
    assert not (root / "g" / "r1").exists()
    assert pruning.go_on(99_000.0) == 0, "it rests between two rounds"
    assert Pruning(root, 99_000.0, 86_400.0).go_on(99_000.0) == 2
    assert {path for path in root.rglob("*") if path.is_file()} == {*kept, fresh}


def test_attempts_are_told_apart_with_their_ends() -> None:
    events: list[dict[str, Any]] = [
        {"t": "node.began", "node": "a", "attempt": 1, "inc": "w1", "at": 10},
        {"t": "node.began", "node": "b", "attempt": 1, "inc": "w2", "at": 20},
        {"t": "node.retry", "node": "a", "attempt": 1, "outcome": "failed", "error": '{"type": "E"}', "at": 30},
        {"t": "node.lost", "node": "b", "attempt": 1, "at": 40},
        {"t": "node.began", "node": "a", "attempt": 2, "inc": "w1", "at": 50},
        {"t": "node.ended", "node": "a", "attempt": 2, "outcome": "succeeded", "at": 60},
        {"t": "node.ended", "node": "c", "outcome": "skipped", "at": 60},
        {"t": "node.began", "node": "b", "attempt": 2, "inc": "w1", "at": 60},
    ]
    found = attempts_of(events)
    assert found == [
        Attempt("w1", "a", 1, 10, 30, "failed", {"type": "E"}),
        Attempt("w2", "b", 1, 20, 40, "lost"),
        Attempt("w1", "a", 2, 50, 60, "succeeded"),
        Attempt("w1", "b", 2, 60, None, "unfinished"),
    ]
    assert most_at_once(found) == 2


def test_capacity_is_that_of_the_workers_that_lived_then() -> None:
    def event(seq: int, kind: str, inc: str = "", slots: int = 0, pool: str = "default") -> tuple[Position, dict[str, Any]]:
        return Position(1, seq), {"t": kind, "inc": inc, "info": {"slots": slots, "pools": [pool]}}

    lives = [
        event(1, "worker.enrolled", "a", 2),
        event(2, "worker.enrolled", "b", 4),
        event(3, "worker.enrolled", "c", 8, "gpu"),
        event(4, "worker.dead", "a"),
    ]
    default = frozenset({"default"})
    assert [capacity_at(lives, Position(1, seq), default, 20) for seq in (0, 1, 3, 4)] == [0, 40, 120, 80]
    assert capacity_at(lives, Position(2, 1), frozenset({"gpu"}), 20) == 160
    assert capacity_at(lives, START, default, 20) == 0
