from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text

from orchestrator.chain import Head, key_id, link
from orchestrator.log_key import known_key, log_key, path_of
from orchestrator.recorder.__main__ import first_start
from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position
from tenancy.errors import HeadgateError

pytestmark = pytest.mark.both_records

KEY = b"a key of the tests"


def entries(*events: dict[str, Any], epoch: int = 1, first: int = 1) -> list[Entry]:
    return [Entry(Position(epoch, first + at), json.dumps({"at": 1000 + at, **event})) for at, event in enumerate(events)]


def due(run: str, node: str, gen: int = 1) -> dict[str, Any]:
    return {"t": "node.due", "tenant": "acme", "run": run, "gen": gen, "nodes": [node]}


OPENED = {"t": "epoch.opened", "epoch": 1, "server": "s", "rebuilt": 0}
REBUILT = {"t": "epoch.opened", "epoch": 2, "server": "t", "rebuilt": 1, "after": "1-6"}
LOG = [
    *entries(OPENED, due("r1", "a"), due("r2", "x"), due("r1", "b", 2), due("r1", "c"), {"t": "scope.paused", "scope": "platform"}),
    *entries(REBUILT, due("r1", "d"), due("r3", "y"), due("r1", "e"), epoch=2),
]


def empty(url: str) -> Engine:
    engine = open_engine(url, writer=True)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=0, seq=0))
    return engine


def rows(engine: Engine, table: Any) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()]


def test_each_event_is_bound_to_all_before_it_of_its_run_and_generation(database_url: str) -> None:
    engine = empty(database_url)
    apply(engine, LOG, {}, KEY)
    links = {(row["epoch"], row["seq"]): row["link"] for row in rows(engine, t.event)}
    assert None not in links.values()
    assert len(set(links.values())) == len(LOG)
    head = Head.new(KEY, "r1", 1)
    for at in (1, 4):
        head = head.then(KEY, *LOG[at])
        assert links[LOG[at].position] == head.link
    # The rebuild between them changed what the run's record says: it is a link of the run's chain as well.
    head = head.then(KEY, *LOG[6]).then(KEY, *LOG[7])
    assert links[LOG[7].position] == head.link
    assert links[2, 3] == Head.new(KEY, "r3", 1).then(KEY, *LOG[8]).link
    assert links[1, 4] == Head.new(KEY, "r1", 2).then(KEY, *LOG[3]).link
    platform = Head.new(KEY, "", 0).then(KEY, *LOG[0]).then(KEY, *LOG[5]).then(KEY, *LOG[6])
    assert links[2, 1] == platform.link
    ends = {(row["run_id"], row["generation"]): row for row in rows(engine, t.chain)}
    assert {name: row["events"] for name, row in ends.items()} == {("", 0): 3, ("r1", 1): 5, ("r1", 2): 1, ("r2", 1): 1, ("r3", 1): 1}
    last = head.then(KEY, *LOG[9])
    assert ends["r1", 1]["link"] == last.link == links[2, 4]
    assert ends["r1", 1]["seal"] == last.seal(KEY, "r1", 1)
    assert {row["key_id"] for row in ends.values()} == {key_id(KEY)}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_however_the_log_is_cut_into_batches_its_chains_are_the_same(new_database: Callable[[], str], size: int) -> None:
    whole, cut = empty(new_database()), empty(new_database())
    apply(whole, LOG, {}, KEY)
    for first in range(0, len(LOG), size):
        apply(cut, LOG[first : first + size], {}, KEY)
        apply(cut, LOG[first : first + size], {}, KEY)  # the second reading changes nothing
    assert rows(whole, t.event) == rows(cut, t.event)
    assert rows(whole, t.chain) == rows(cut, t.chain)


def test_another_key_another_text_another_place_and_another_run_make_other_links() -> None:
    base = ("0" * 64, Position(1, 2), "text")
    made = {link(KEY, *base), link(b"another key of 16", *base), link(KEY, "1" * 64, *base[1:])}
    made |= {link(KEY, base[0], Position(1, 3), "text"), link(KEY, base[0], Position(1, 2), "texts")}
    assert len(made) == 5
    names = [("r", 1), ("r", 2), ("q", 1), ("r.1", 1), ("", 0)]
    assert len({Head.new(KEY, *name).link for name in names}) == len(names)
    assert len({Head.new(KEY, "r", 1).seal(KEY, *name) for name in names}) == len(names)


def as_before_chains(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE chain")
        connection.exec_driver_sql("ALTER TABLE event DROP COLUMN link")
        connection.exec_driver_sql("ALTER TABLE tenant DROP COLUMN status")


@pytest.mark.parametrize("at_once", [1, 2, 7, 1_000])
def test_a_record_of_an_older_version_gets_columns_and_chain_at_the_first_start_and_says_so(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("orchestrator.recorder.chaining.AT_ONCE", at_once)
    engine = empty(new_database())
    apply(engine, LOG, {}, KEY)
    whole = rows(engine, t.event), rows(engine, t.chain)
    as_before_chains(engine)
    first_start(engine, 5, KEY)
    assert (rows(engine, t.event), rows(engine, t.chain)) == whole
    assert [(row["kind"], row["id"], json.loads(row["detail"])) for row in rows(engine, t.incident)] == [
        ("chained", "chained.2-4", {"events": 10})
    ]
    assert [row["status"] for row in rows(engine, t.tenant)] == ["active"]


def test_only_a_record_without_any_chain_is_chained_afterwards(database_url: str) -> None:
    engine = empty(database_url)
    apply(engine, LOG, {}, KEY)
    with engine.begin() as connection:
        connection.execute(text("UPDATE event SET link = NULL"))
        connection.execute(text("DELETE FROM chain"))
    first_start(engine, 5, KEY)
    assert {row["link"] for row in rows(engine, t.event)} == {None}


def test_an_upgrade_that_dies_halfway_is_done_from_the_beginning(new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = empty(new_database())
    apply(engine, LOG, {}, KEY)
    whole = rows(engine, t.event)
    as_before_chains(engine)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.recorder.__main__.adopt", die)
        with pytest.raises(KeyboardInterrupt):
            first_start(engine, 5, KEY)
    first_start(engine, 5, KEY)
    assert rows(engine, t.event) == whole


def test_a_log_that_goes_on_with_another_key_is_an_incident(database_url: str) -> None:
    engine = empty(database_url)
    apply(engine, LOG, {}, KEY)
    first_start(engine, 5, KEY)
    assert rows(engine, t.incident) == []
    first_start(engine, 6, b"a key from elsewhere")
    assert [row["kind"] for row in rows(engine, t.incident)] == ["rekeyed"]


def test_the_key_is_made_once_for_its_owner_alone(home: Path) -> None:
    settings = Settings(home=home / "new")
    assert known_key(settings) is None
    found: list[bytes] = []
    racers = [threading.Thread(target=lambda: found.append(log_key(settings))) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert len(found[0]) == 64
    assert path_of(settings).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in settings.home.iterdir()] == ["log.key"]
    assert known_key(settings) == found[0]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_key_that_others_may_use_is_refused_with_the_remedy(home: Path, mode: int) -> None:
    settings = Settings(home=home)
    log_key(settings)
    path_of(settings).chmod(mode)
    with pytest.raises(HeadgateError, match=f"log.key has mode 0{mode:o}.*chmod 600"):
        log_key(settings)


def test_a_file_without_a_key_is_no_key_and_is_not_written_over(home: Path) -> None:
    settings = Settings(home=home)
    path_of(settings).touch(0o600)
    with pytest.raises(HeadgateError, match="put back the key"):
        log_key(settings)
    assert path_of(settings).read_bytes() == b""


def test_a_setting_goes_before_the_file_and_is_not_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_LOG_KEY", "sixteen or more characters")
    settings = Settings.load()
    assert log_key(settings) == b"sixteen or more characters"
    assert "sixteen" not in repr(settings)
    Settings.forget()
    monkeypatch.setenv("HEADGATE_LOG_KEY", "too short")
    with pytest.raises(HeadgateError, match=r"HEADGATE_LOG_KEY=\*\*\* does not fit"):
        Settings.load()
