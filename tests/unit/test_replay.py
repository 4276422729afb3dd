from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text

from orchestrator.artifacts.event_log import files_in, missing_logs, write_log
from orchestrator.artifacts.place import event_log as path_of
from orchestrator.artifacts.writer import ArtifactWriter
from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.recorder.requests import run_row
from orchestrator.replay import Replay, replay_file, replay_run
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position
from tenancy.errors import HeadgateError

KEY = b"a key of the tests"
GRAPH = json.dumps({"name": "g", "nodes": [{"id": "a", "task": "x.y"}, {"id": "b", "required": False, "task": "x.y"}]}).encode()
R1, R2 = "01j00000000000000000000001", "01j00000000000000000000002"


def life(run: str) -> list[dict[str, Any]]:
    """A run of two nodes: one fails once and then succeeds, the other is optional and given up."""
    of = {"tenant": "acme", "run": run, "gen": 1}
    asked = {"request": f"q{run}", "digest": hashlib.sha256(GRAPH).hexdigest(), "graph": "g", "priority": 5, "labels": {"team": "é"}}
    began = {"t": "node.began", **of, "node": "a", "inc": "i", "worker": "w1", "amount": "500", "day": 3, "verdict": ""}
    settled = {"t": "money.settled", **of, "node": "a", "reserved": "500", "day": 3, "by": "signal", "kind": "settle"}
    return [
        {"t": "request.submit", **of, **asked, "key": f"k{run}", "budget": None, "learned": "", "strict": 0, "full": 0},
        {"t": "run.admitted", **of, "graph": "g", "total": 2, "estimate": "500", "floor": "400", "hold": "500", "budget": ""},
        {"t": "run.started", **of, "degraded": False},
        {"t": "node.due", **of, "nodes": ["a", "b"]},
        {**began, "attempt": 1},
        {"t": "node.retry", **of, "node": "a", "attempt": 1, "outcome": "failed", "error": '{"type": "Boom"}', "delay_ms": 1},
        {**settled, "attempt": 1, "amount": "30", "cats": {"llm": "20", "compute": "10"}},
        {"t": "node.ended", **of, "node": "b", "outcome": "skipped", "reason": "given up"},
        {**began, "attempt": 2},
        {"t": "node.ended", **of, "node": "a", "attempt": 2, "outcome": "succeeded", "result": '"ü"', "lines": '[["llm","token","4"]]'},
        {**settled, "attempt": 2, "amount": "40", "cats": {"llm": "40"}, "price_version": "p1"},
        {"t": "run.ended", **of, "outcome": "degraded", "cost": "70", "released": "430", "counts": {"succeeded": 1, "skipped": 1}},
    ]


def entries(events: list[dict[str, Any]], epoch: int = 1, first: int = 1) -> list[Entry]:
    return [
        Entry(Position(epoch, first + at), json.dumps({"at": 1000 + at, **event}, ensure_ascii=bool(at % 2)))
        for at, event in enumerate(events)
    ]


def recorded(directory: Path, log: list[Entry], *runs: str) -> Engine:
    engine = open_engine(f"sqlite:///{directory}/record.db", writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=log[0].position.epoch, seq=log[0].position.seq - 1))
        for run in runs:
            event = next(json.loads(entry.text) for entry in log if '"request.submit"' in entry.text and run in entry.text)
            connection.execute(insert(t.run), {**run_row(event), "spec": zlib.compress(GRAPH)})
            connection.execute(insert(t.request), {"id": event["request"], "at": 0, "answer": "{}"})
    apply(engine, log, {}, KEY)
    return engine


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of two runs whose events came in turns."""
    directory = tmp_path_factory.mktemp("template")
    log = [event for pair in zip(life(R1), life(R2), strict=True) for event in pair]
    recorded(directory, entries(log), R1, R2).dispose()
    return directory / "record.db"


@pytest.fixture
def engine(tmp_path: Path, template: Path) -> Engine:
    shutil.copy(template, tmp_path)
    return open_engine(f"sqlite:///{tmp_path}/record.db", writer=True)


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount


def events_of(engine: Engine, run: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(t.event).where(t.event.c.run_id == run).order_by(t.event.c.epoch, t.event.c.seq)))


def replayed(engine: Engine, run: str = R1, key: bytes | None = KEY) -> Replay:
    return replay_run(engine, run, 1, key)


def test_a_log_that_nobody_touched_agrees_with_its_rows(engine: Engine) -> None:
    for run in (R1, R2):
        found = replayed(engine, run)
        assert found.differences == ()
        assert (found.events, found.nodes, found.status, found.outcome, found.cost_micros) == (12, 2, "ended", "degraded", 70)


# Each event of the first run stands at an odd position.


@pytest.mark.parametrize("at", range(12))
def test_an_event_that_was_changed_is_named(engine: Engine, at: int) -> None:
    change(engine, f"UPDATE event SET data = replace(data, '\"at\": ', '\"at\":  ') WHERE seq = {2 * at + 1}")
    found = replayed(engine).differences
    assert found == (
        f"event 1-{2 * at + 1}: was changed, or an event {'between 1-%s and it' % (2 * at - 1) if at else 'before it'} is missing",
    )
    assert replayed(engine, R2).differences == ()


@pytest.mark.parametrize("at", range(12))
def test_an_event_that_was_dropped_is_missed(engine: Engine, at: int) -> None:
    change(engine, f"DELETE FROM event WHERE seq = {2 * at + 1}")
    found = replayed(engine).differences
    if at < 11:
        assert found[0].startswith(f"event 1-{2 * at + 3}: was changed, or an event ")
    else:
        assert found[0] == "the log ends at 1-21, and was recorded up to 1-23: what came last is missing"


@pytest.mark.parametrize("seq", [0, 2, 10, 24])
@pytest.mark.parametrize("with_link", ["none", "own", "next"])
def test_an_event_that_was_added_is_named(engine: Engine, seq: int, with_link: str) -> None:
    links = [row.link for row in events_of(engine, R1)]
    made = {"none": "NULL", "own": f"'{'0' * 64}'", "next": f"'{links[min(seq // 2, 11)]}'"}[with_link]
    data = json.dumps({"t": "node.sang", "tenant": "acme", "run": R1, "gen": 1, "at": 5})
    columns = "epoch, seq, at, type, tenant, run_id, generation, data, link"
    values = f"1, {seq + 100}, 5, 'node.sang', 'acme', '{R1}', 1, '{data}', {made}"
    change(engine, f"INSERT INTO event ({columns}) VALUES ({values})")
    # Its place among the others is its position: make room for it.
    change(engine, f"UPDATE event SET seq = {seq} WHERE seq = {seq + 100}") if seq in (0,) else None
    place = 0 if seq == 0 else seq + 100
    found = replayed(engine).differences
    assert any(sentence.startswith(f"event 1-{place}: ") for sentence in found), found


def test_an_event_added_between_others_is_named_alone(engine: Engine) -> None:
    change(engine, f"UPDATE event SET run_id = '{R1}', data = replace(data, '{R2}', '{R1}') WHERE seq = 12")
    assert "event 1-12: was added" in replayed(engine).differences
    assert any(sentence.startswith("event 1-14: was changed, or an event between 1-10") for sentence in replayed(engine, R2).differences)


def test_events_that_changed_places_are_both_named(engine: Engine) -> None:
    for before, after in ((7, 1007), (9, 7), (1007, 9)):
        change(engine, f"UPDATE event SET seq = {after} WHERE seq = {before}")
    found = replayed(engine).differences
    assert [sentence[:10] for sentence in found if sentence.startswith("event")] == ["event 1-7:", "event 1-9:"]


def test_the_events_of_two_runs_cannot_be_swapped(engine: Engine) -> None:
    for old, new in ((R1, "x"), (R2, R1), ("x", R2)):
        change(engine, f"UPDATE event SET run_id = '{new}', data = replace(data, '{old}', '{new}') WHERE run_id = '{old}'")
    for run in (R1, R2):
        assert any("does not belong here" in sentence for sentence in replayed(engine, run).differences)
    # Not with the ends of their chains either.
    for old, new in ((R1, "x"), (R2, R1), ("x", R2)):
        change(engine, f"UPDATE chain SET run_id = '{new}' WHERE run_id = '{old}'")
    for run in (R1, R2):
        assert any("is not sealed with this key" in sentence for sentence in replayed(engine, run).differences)


@pytest.mark.parametrize("kept", range(12))
def test_a_log_cut_at_its_end_is_noticed_whatever_is_written_over_the_end_of_its_chain(engine: Engine, kept: int) -> None:
    links = [row.link for row in events_of(engine, R1)]
    last = 2 * kept - 1
    change(engine, f"DELETE FROM event WHERE run_id = '{R1}' AND seq > {last}")
    where = f"1-{last}" if kept else "its beginning"
    assert f"the log ends at {where}, and was recorded up to 1-23: what came last is missing" in replayed(engine).differences
    change(engine, f"UPDATE chain SET events = {kept}, seq = {last}, link = '{links[kept - 1]}' WHERE run_id = '{R1}'")
    assert any("is not sealed with this key: it was changed" in sentence for sentence in replayed(engine).differences)
    change(engine, f"DELETE FROM chain WHERE run_id = '{R1}'")
    if kept:
        assert any("no end of its chain" in sentence for sentence in replayed(engine).differences)


def test_links_that_were_taken_away_are_missed(engine: Engine) -> None:
    change(engine, "UPDATE event SET link = NULL WHERE seq = 9")
    assert replayed(engine).differences == ("event 1-9: has no link; it was added, or its link was taken away",)


def test_a_log_that_was_made_anew_with_another_key_is_not_taken_for_the_old_one(engine: Engine) -> None:
    found = replayed(engine, key=b"the key of somebody else").differences
    assert len(found) == 1
    assert "it was made anew, or another key is needed" in found[0]


ROWS = [
    (
        f"UPDATE run SET outcome = 'succeeded' WHERE run_id = '{R1}'",
        f"run {R1}.1: outcome is 'succeeded' on record, and 'degraded' by the log",
    ),
    (f"UPDATE run SET cost_micros = 69 WHERE run_id = '{R1}'", "cost_micros is 69 on record, and 70 by the log"),
    (f"UPDATE run SET counts = replace(counts, ': ', ':') WHERE run_id = '{R1}'", "counts is "),
    (f"UPDATE run SET priority = 1 WHERE run_id = '{R1}'", "run: priority is 1 on record, and 5 was submitted"),
    (f"UPDATE run SET tenant = 'other' WHERE run_id = '{R1}'", "run: tenant is 'other' on record, and 'acme' was submitted"),
    (f"UPDATE run SET digest = 'ab' WHERE run_id = '{R1}'", "the graph is not the one that was submitted"),
    (
        f"UPDATE node SET result = '\"u\"' WHERE run_id = '{R1}' AND node_id = 'a'",
        "node a: result is '\"u\"' on record, and '\"ü\"' by the log",
    ),
    (f"UPDATE node SET cost_llm = 61 WHERE run_id = '{R1}' AND node_id = 'a'", "node a: cost_llm is 61 on record, and 60 by the log"),
    (f"DELETE FROM node WHERE run_id = '{R1}' AND node_id = 'b'", "node b: is not on record, and the log makes it"),
    (f"UPDATE ledger SET amount = 1 WHERE id = '{R1}.1.a.1.settle.llm'", f"ledger {R1}.1.a.1.settle.llm: amount is 1 on record, and 20"),
    (f"DELETE FROM ledger WHERE id = '{R1}.1.hold'", f"ledger {R1}.1.hold: is not on record"),
    (f"UPDATE ledger SET id = 'x' WHERE id = '{R1}.1.hold'", "ledger x: is on record, and nothing in the log makes it"),
    (f"UPDATE usage SET lines = '[]' WHERE run_id = '{R1}'", "usage a.2: lines is '[]' on record"),
    (f"UPDATE event SET type = 'node.sang' WHERE run_id = '{R1}' AND seq = 7", "event 1-7: type is 'node.sang' on record, and 'node.due'"),
]


@pytest.mark.parametrize(("statement", "sentence"), ROWS)
def test_a_row_that_the_log_does_not_make_is_named_with_its_column(engine: Engine, statement: str, sentence: str) -> None:
    change(engine, statement)
    assert any(sentence in found for found in replayed(engine, key=None).differences), replayed(engine, key=None).differences
    assert replayed(engine, R2).differences == ()


def changed(at: int, **fields: Any) -> list[dict[str, Any]]:
    events = life(R1)
    events[at] |= fields
    return events


def without(at: int) -> list[dict[str, Any]]:
    return [event for number, event in enumerate(life(R1)) if number != at]


def again(at: int) -> list[dict[str, Any]]:
    return [*life(R1)[: at + 1], *life(R1)[at:]]


BROKEN = [
    (again(9), "node a: has 2 outcomes, by events 1-10, 1-11"),
    (without(7), "node b: the run has ended, and it has no outcome"),
    (again(4), "node a attempt 1 (event 1-6): began before"),
    (again(10), "node a attempt 2 (event 1-12): settle, and it is settled"),
    (without(10), "node a attempt 2: the run has ended, and it was neither settled nor given back"),
    (without(8), "attempt 2 succeeded at event 1-9, and the last that began is 1"),
    (changed(10, kind="waste"), "is charged as waste, and its money was not given back before"),
    (changed(10, amount="41"), "settles 41 micros, and its categories come to 40"),
    (changed(11, cost="71"), "says that the run cost 71 micros, and 70 were settled"),
    (changed(11, outcome="succeeded"), "the run is succeeded, and its nodes make it degraded"),
    (changed(11, counts={"succeeded": 2}), "counts {'succeeded': 2}, and the nodes ended as {'skipped': 1, 'succeeded': 1}"),
    (again(11), "the run ended at event 1-12, and again at 1-13"),
    ([*life(R1), life(R1)[8]], "event 1-13 is a node.began, and the run ended at 1-12"),
]


@pytest.mark.parametrize(("events", "sentence"), BROKEN)
def test_a_log_that_breaks_a_rule_is_told_even_where_the_record_agrees_with_it(
    tmp_path: Path, events: list[dict[str, Any]], sentence: str
) -> None:
    found = replayed(recorded(tmp_path, entries(events), R1)).differences
    assert any(sentence in each for each in found), found


def test_events_of_a_kind_that_is_not_known_do_no_harm(tmp_path: Path) -> None:
    of = {"tenant": "acme", "run": R1, "gen": 1}
    more = [{"t": "node.sang", **of, "node": "a", "song": [1]}, {"t": "run.sang", **of}, {"t": "map.expanded", **of, "items": 3}]
    events = [*life(R1)[:5], *more, *life(R1)[5:]]
    engine = recorded(tmp_path, entries(events), R1)
    assert replayed(engine).differences == ()
    assert replayed(engine).events == 15


def test_an_event_that_does_not_read_as_its_type_says_is_named(tmp_path: Path) -> None:
    found = replayed(recorded(tmp_path, entries(changed(8, day="x")), R1)).differences
    assert "event 1-9: does not read as its type says" in found


def test_what_a_rebuild_gave_back_follows_from_the_log(tmp_path: Path) -> None:
    opened = {"t": "epoch.opened", "epoch": 2, "server": "t", "rebuilt": 1, "after": "1-5"}
    late = {**life(R1)[6], "kind": "waste"}  # what the lost attempt still reports
    log = [*entries(life(R1)[:5]), *entries([opened, late, *life(R1)[7:]], epoch=2)]
    engine = recorded(tmp_path, log, R1)
    with engine.connect() as connection:
        assert connection.execute(select(t.ledger.c.kind).where(t.ledger.c.by == "recovery")).scalars().all() == ["expire"]
    assert replayed(engine).differences == ()
    assert replayed(engine).events == 12
    change(engine, "UPDATE event SET data = replace(data, '\"rebuilt\": 1', '\"rebuilt\": 0') WHERE type = 'epoch.opened'")
    assert any("event 2-2: was changed, or an event" in each for each in replayed(engine).differences)


def test_a_run_that_is_still_open_when_its_state_was_rebuilt_agrees(tmp_path: Path) -> None:
    opened = {"t": "epoch.opened", "epoch": 2, "server": "t", "rebuilt": 1, "after": "1-5"}
    engine = recorded(tmp_path, [*entries(life(R1)[:5]), *entries([opened], epoch=2)], R1)
    found = replayed(engine)
    assert (found.differences, found.status, found.events) == ((), "running", 5)


# -- the log as a file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(engine: Engine, home: Path, tmp_path: Path) -> Path:
    """The first run's log, from which everything else is gone."""
    path = write_log(engine, home, KEY, R1, 1)
    assert path == home / "g" / R1 / "events.jsonl"
    shutil.copytree(path.parent, tmp_path / "elsewhere")
    shutil.rmtree(home)
    (tmp_path / "record.db").unlink()
    return tmp_path / "elsewhere" / "events.jsonl"


def test_a_file_alone_is_enough_to_replay_a_run(file: Path) -> None:
    found = replay_file(file, KEY)
    assert (found.differences, found.events, found.nodes, found.outcome, found.cost_micros) == ((), 12, 2, "degraded", 70)
    assert found.chained
    assert files_in(file.parent) == files_in(file) == [file]
    for line in file.read_text().splitlines():
        assert isinstance(json.loads(line), dict)


def test_without_the_key_structure_and_totals_are_checked(file: Path) -> None:
    assert (replay_file(file, None).differences, replay_file(file, None).chained) == ((), False)
    file.write_text(file.read_text().replace('"cost": "70"', '"cost": "71"'))
    assert replay_file(file, None).differences == ("event 1-23: says that the run cost 71 micros, and 70 were settled",)


def replaced(old: str, new: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [line.replace(old, new) for line in lines]


IN_FILES: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "edited": (replaced('"verdict": "", "attempt": 2', '"verdict": "", "attempt": 3'), "event 1-17: was changed"),
    "respaced": (replaced('"outcome": "skipped"', '"outcome":"skipped"'), "event 1-15: was changed"),
    "dropped": (lambda lines: lines[:4] + lines[5:], "event 1-9: was changed, or an event between 1-5 and it is missing"),
    "doubled": (lambda lines: lines[:5] + lines[4:], "event 1-7: stands after 1-7"),
    "reordered": (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], "event 1-7: stands after 1-9"),
    "cut": (lambda lines: [*lines[:-3], lines[-1]], "the log ends at 1-19, and was recorded up to 1-23"),
    "without end": (lambda lines: lines[:-1], "the last line, the end of the chain, is missing"),
    "half a line": (lambda lines: [*lines[:-1], lines[-1][:40]], "the last line, the end of the chain, is missing"),
    "another head": (replaced('"priority":5', '"priority":1'), "the first or the last line was changed"),
    "another graph": (replaced('"required": false, ', ""), "the graph is not the one that was submitted"),
    "another foot": (replaced('"outcome":"degraded"', '"outcome":"succeeded"'), "the first or the last line was changed"),
    "another total": (replaced('"llm":60', '"llm":61'), "cost is {'compute': 10, 'llm': 61} on record, and {'compute': 10,"),
    "another node": (replaced('"b":"skipped"', '"b":"failed"'), "node b: is 'failed' on record, and 'skipped' by the log"),
    "prose": (lambda lines: [*lines[:4], "hello", *lines[4:]], "line 5 is not an event as it was written: 'hello'"),
}  # fmt: skip


@pytest.mark.parametrize("how", IN_FILES)
def test_a_file_that_was_tampered_with_says_where(file: Path, how: str) -> None:
    tamper, sentence = IN_FILES[how]
    before = file.read_text().splitlines()
    after = tamper(list(before))
    assert after != before
    file.write_text("\n".join(after) + "\n")
    found = replay_file(file, KEY).differences
    assert any(sentence in each for each in found), found


def test_the_file_of_another_run_cannot_be_passed_off_as_this_one(engine: Engine, home: Path) -> None:
    path = write_log(engine, home, KEY, R1, 1)
    assert path is not None
    path.write_text(path.read_text().replace(R1, R2))
    assert any("event 1-1: " in each for each in replay_file(path, KEY).differences)


def test_what_is_no_log_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(HeadgateError, match=r"there is no events\.jsonl in"):
        files_in(tmp_path)
    (tmp_path / "events.jsonl").write_text("hello\n")
    with pytest.raises(HeadgateError, match="is not the log of a run"):
        replay_file(tmp_path / "events.jsonl", KEY)


def test_a_text_of_several_lines_stays_one_event(tmp_path: Path, home: Path) -> None:
    of = f'"tenant": "acme", "run": "{R1}", "gen": 1'
    odd = [f'{{"t": "node.sang",\n {of}}}', f'{{"text": "x", "t": "node.sang", {of}}}']
    log = entries(life(R1))
    log[6:6] = [Entry(Position(1, 1), each) for each in odd]
    log = [Entry(Position(1, at), entry.text) for at, entry in enumerate(log, 1)]
    engine = recorded(tmp_path, log, R1)
    path = write_log(engine, home, KEY, R1, 1)
    assert path is not None
    assert len(path.read_text().splitlines()) == 16
    assert replay_file(path, KEY).differences == replayed(engine).differences == ()


def test_a_file_passes_through_rebuilds_as_the_chain_does(tmp_path: Path, home: Path) -> None:
    opened = {"t": "epoch.opened", "epoch": 2, "server": "t", "rebuilt": 1, "after": "1-5"}
    late = {**life(R1)[6], "kind": "waste"}
    engine = recorded(tmp_path, [*entries(life(R1)[:5]), *entries([opened, late, *life(R1)[7:]], epoch=2)], R1)
    path = write_log(engine, home, KEY, R1, 1)
    assert path is not None
    assert replay_file(path, KEY).differences == ()
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "epoch.opened" not in line))
    assert any("event 2-2: was changed, or an event between 1-5" in each for each in replay_file(path, KEY).differences)


def test_a_log_is_written_when_its_run_ends_and_again_when_something_is_charged_late(tmp_path: Path, home: Path) -> None:
    log = entries(life(R1))
    engine = recorded(tmp_path, log[:11], R1)
    assert write_log(engine, home, KEY, R1, 1) is None
    assert missing_logs(engine, home) == []
    assert apply(engine, log[11:], {}, KEY).logs == [(R1, 1)]
    assert missing_logs(engine, home) == [(R1, 1)]
    writer = ArtifactWriter(engine, home, KEY)
    writer.catch_up()
    writer.close()
    path = path_of(home, "g", R1, 1)
    assert replay_file(path, KEY).events == 12
    assert missing_logs(engine, home) == []
    late = {**life(R1)[6], "kind": "waste", "attempt": 3, "amount": "5", "cats": {"llm": "5"}}
    assert apply(engine, entries([late], first=13), {}, KEY).logs == [(R1, 1)]
    assert missing_logs(engine, home) == [(R1, 1)]
    writer = ArtifactWriter(engine, home, KEY)
    writer.runs_ended([(R1, 1), ("task.x", 0)])
    writer.close()
    assert replay_file(path, KEY).events == 13
    assert missing_logs(engine, home) == []
    path.write_text(path.read_text()[:-100])  # a loss of power
    assert missing_logs(engine, home) == [(R1, 1)]
    assert missing_logs(engine, home, since_ms=10**15) == [], "what is as old as what is removed is not written again"


def test_generations_lie_beside_each_other_and_no_name_leads_out_of_the_folder(home: Path) -> None:
    assert path_of(home, "g", "r", 2) == home / "g" / "r" / "events.2.jsonl"
    for name in ("../..", "..", ".", "", "a/b"):
        assert path_of(home, name, "r", 1).resolve().parent.parent.parent == home
