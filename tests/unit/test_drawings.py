"""Drawings are made once: for those who ask at the same time, after a restart, and again only where their file says nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from orchestrator.store import read
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.read import RunView
from orchestrator.web import drawings
from orchestrator.web.drawings import Drawings
from tests.stored_runs import run_id, store_runs


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Engine]:
    """Some runs, all of one graph of 30 nodes."""
    writer = open_engine(f"sqlite:///{tmp_path / 'r.db'}", writer=True)
    create_tables(writer)
    store_runs(writer, 3)
    yield writer
    writer.dispose()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of nodes of the graphs that were drawn."""
    counted: list[int] = []
    draw = drawings.run_view.drawing

    def counting(nodes: list[dict[str, Any]]) -> dict[str, Any]:
        counted.append(len(nodes))
        return draw(nodes)

    monkeypatch.setattr(drawings.run_view, "drawing", counting)
    return counted


@pytest.fixture
def run(record: Engine) -> RunView:
    return read.get_run(record, run_id(1))


def test_a_graph_is_drawn_once_however_many_ask_at_the_same_time(record: Engine, run: RunView, drawn: list[int], tmp_path: Path) -> None:
    kept, all_there = Drawings(tmp_path / "kept", filed_from=1), threading.Barrier(4)

    def ask() -> dict[str, Any]:
        all_there.wait(20)
        return kept.of(record, run)

    with ThreadPoolExecutor(4) as pool:
        found = [each.result(20) for each in [pool.submit(ask) for _ in range(4)]]
    assert all(each == found[0] for each in found)
    assert drawn == [30]


def test_a_drawing_outlives_the_console_that_made_it(record: Engine, run: RunView, drawn: list[int], tmp_path: Path) -> None:
    first = Drawings(tmp_path / "kept", filed_from=30).of(record, run)
    assert Drawings(tmp_path / "kept", filed_from=30).of(record, run) == first
    assert drawn == [30]
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700, "graphs are nobody else's business"
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "kept").iterdir()] == [0o600]


def test_a_small_graph_has_no_file(record: Engine, run: RunView, tmp_path: Path) -> None:
    Drawings(tmp_path / "kept", filed_from=31).of(record, run)
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("damage", [b"", b"cut", b"x\x9c\xab\x56\x2a"])
def test_a_file_that_was_damaged_is_made_anew(damage: bytes, record: Engine, run: RunView, drawn: list[int], tmp_path: Path) -> None:
    first = Drawings(tmp_path, filed_from=1).of(record, run)
    (file,) = tmp_path.glob("*.json.z")
    file.write_bytes(damage or file.read_bytes()[:40])
    assert Drawings(tmp_path, filed_from=1).of(record, run) == first
    assert Drawings(tmp_path, filed_from=1).of(record, run) == first
    assert drawn == [30, 30]


def test_where_nothing_can_be_written_memory_does_and_it_is_told_once(
    record: Engine, run: RunView, drawn: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the directory should be")
    kept = Drawings(tmp_path / "taken", in_memory=1, filed_from=1)
    with caplog.at_level(logging.WARNING):
        assert kept.of(record, run) == kept.of(record, run)
        kept.of(record, read.get_run(record, run_id(2)))
    assert drawn == [30]
    assert len([each for each in caplog.records if "kept in memory only" in each.message]) == 1


def test_the_files_that_were_not_looked_at_for_longest_go(record: Engine, run: RunView, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        with record.begin() as connection:
            connection.exec_driver_sql(f"UPDATE run SET digest = '{name}' WHERE run_id = '{run.run_id}'")
        Drawings(tmp_path / "kept", in_files=2, filed_from=1).of(record, read.get_run(record, run.run_id))
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_failure_is_told_to_all_who_asked_and_not_kept(
    record: Engine, run: RunView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, draw = Drawings(tmp_path / "kept"), drawings.run_view.drawing
    monkeypatch.setattr(drawings.run_view, "drawing", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kept.of(record, run)
    monkeypatch.setattr(drawings.run_view, "drawing", draw)
    assert len(kept.of(record, run)["ids"]) == 30
