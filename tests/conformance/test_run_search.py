"""Lists of runs: every filter, page and count against a plain search, and from indexes alone at a hundred thousand runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, inspect, select, text
from sqlalchemy.dialects import sqlite

from orchestrator.store import run_search as searches
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.run_search import Cursor, Wanted, graph_strips, search_runs, state_of
from orchestrator.store.standing import not_enforced
from tenancy.policy import Policy
from tests.stored_runs import NOW_MS, run_id, store_runs, store_tenants

pytestmark = pytest.mark.both_records

STORED = 700
TENANTS = ("acme", "beta", "gamma")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path_factory.mktemp('record') / 'r.db'}"
    writer = open_engine(url, writer=True)
    create_tables(writer)
    store_runs(writer, STORED, tenants=TENANTS, graphs=5)
    hostile = {
        "run_id": run_id(10**6),
        "generation": 1,
        "tenant": "beta",
        "status": "held",
        "submitted_at": NOW_MS - 5_000,
        "labels": "{}",
        "cost_micros": 0,
    }
    labelled = {**hostile, "run_id": run_id(10**6 + 1), "status": "running", "labels": json.dumps({"note": '"batch": "7"', "100%": "a_b"})}
    with writer.begin() as connection:
        connection.execute(insert(t.run), [{**hostile, "graph_name": "a%b_c"}, {**labelled, "graph_name": "aXbYc"}])
    yield open_engine(url)
    writer.dispose()


def everything(record: Engine) -> list[dict[str, Any]]:
    """The newest generation of each run, newest first, by reading all of them."""
    with record.connect() as connection:
        rows = [dict(row) for row in connection.execute(select(t.run)).mappings()]
    newest = {row["run_id"]: row for row in sorted(rows, key=lambda row: int(row["generation"]))}
    return sorted(newest.values(), key=lambda row: (row["submitted_at"], row["run_id"], row["generation"]), reverse=True)


def fits(row: dict[str, Any], wanted: Wanted) -> bool:
    labels = json.loads(row["labels"])
    name, value = wanted.label or (None, None)
    words = (wanted.words or "").lower()
    return (
        wanted.tenant in (None, row["tenant"])
        and wanted.graph in (None, row["graph_name"])
        and (wanted.since is None or row["submitted_at"] >= wanted.since * 1000)
        and (wanted.until is None or row["submitted_at"] < wanted.until * 1000)
        and (name is None or (name in labels and value in (None, labels[name])))
        and any(words in (row[column] or "").lower() for column in ("run_id", "key", "tenant", "graph_name"))
    )


WANTED = {
    "nothing": Wanted(),
    "state": Wanted(states=("failed",)),
    "states": Wanted(states=("held", "running", "degraded")),
    "tenant": Wanted(tenant="acme"),
    "graph": Wanted(graph="graph-3"),
    "label": Wanted(label=("batch", "7")),
    "label without value": Wanted(label=("100%", None)),
    "label with a joker": Wanted(label=("100%", "aXb")),
    "text of a label": Wanted(label=("note", '"batch": "7"')),
    "words": Wanted(words="KEY-31"),
    "words with a joker": Wanted(words="a%b"),
    "time": Wanted(since=NOW_MS / 1000 - 400, until=NOW_MS / 1000 - 100),
    "all of them": Wanted(("failed", "succeeded"), "beta", "graph-1", ("team", "ads"), "key-", NOW_MS / 1000 - 600, NOW_MS / 1000),
    "nobody": Wanted(tenant="nobody"),
}


@pytest.mark.parametrize("name", WANTED)
def test_pages_together_are_what_a_plain_search_finds_and_so_are_the_counts(name: str, record: Engine) -> None:
    wanted = WANTED[name]
    plain = [row for row in everything(record) if fits(row, wanted)]
    shown = [row for row in plain if not wanted.states or state_of(row["status"], row["outcome"]) in wanted.states]
    found: list[tuple[str, int]] = []
    cursor: Cursor | None = None
    while True:
        page = search_runs(record, wanted, cursor, 60)
        assert page.counts == Counter(state_of(row["status"], row["outcome"]) for row in plain)
        assert not page.partial
        found += [(run.run_id, run.generation) for run in page.runs]
        if page.after is None:
            break
        assert len(page.runs) == 60
        cursor = Cursor.parse(str(page.after))
    assert found == [(row["run_id"], row["generation"]) for row in shown]


def test_a_run_that_was_run_again_is_listed_once_with_its_newest_generation(record: Engine) -> None:
    again = search_runs(record, Wanted(words=run_id(50))).runs
    assert [(run.run_id, run.generation) for run in again] == [(run_id(50), 2)]
    assert searches.generations(record, run_id(50))[1] == (2, "succeeded")


def test_a_search_for_a_label_says_when_it_did_not_look_at_all(record: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "LABELLED_MAX", 100)
    found = search_runs(record, Wanted(label=("team", "ads")))
    assert found.partial
    assert sum(found.counts.values()) < 100
    assert not search_runs(record, Wanted(label=("team", "ads"), since=NOW_MS / 1000 - 50)).partial


def test_strips_have_the_newest_twenty_of_each_graph_oldest_first(record: Engine) -> None:
    strips = {strip.graph: strip.runs for strip in graph_strips(record, "acme")}
    mine = [row for row in everything(record) if row["tenant"] == "acme"]
    for graph, runs in strips.items():
        newest = [row for row in mine if row["graph_name"] == graph][:20]
        assert runs == tuple((row["run_id"], row["generation"], state_of(row["status"], row["outcome"])) for row in reversed(newest))
    assert set(strips) == {row["graph_name"] for row in mine}


def test_a_cursor_that_does_not_read_is_refused() -> None:
    for words in ("", "1", "a.b.c", "1.x", "1.x.y"):
        with pytest.raises(ValueError):
            Cursor.parse(words)


@pytest.mark.parametrize("name", ["nothing", "tenant", "graph", "words", "time"])
def test_what_fits_is_found_in_an_index_and_in_order(name: str, record: Engine) -> None:
    wanted = WANTED[name]
    query = searches._fitting(wanted, searches._KEYS_AND_STATE).limit(51)
    sql = str(query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    with record.connect() as connection:
        plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}".replace("%", "%%"))]
    assert any("USING COVERING INDEX run_recent" in step or "USING COVERING INDEX run_graph" in step for step in plan), plan
    assert any("USING COVERING INDEX run_again" in step or "USING INDEX run_again" in step for step in plan), plan
    assert name == "graph" or not any("TEMP B-TREE" in step for step in plan), plan


def test_each_list_takes_less_than_half_a_second_of_work_at_a_hundred_thousand_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'large.db'}"
    writer = open_engine(url, writer=True)
    create_tables(writer)
    store_runs(writer, 100_000, tenants=[f"tenant-{each}" for each in range(20)])
    record = open_engine(url)

    def work_s(wanted: Wanted) -> float:
        began = time.thread_time()  # other tests load the machine: what this thread works, and not what it waits
        search_runs(record, wanted)
        graph_strips(record, wanted.tenant)
        return time.thread_time() - began

    for wanted in (
        *(Wanted(states=(state,)) for state in ("failed", "running")),
        Wanted(tenant="tenant-3"),
        Wanted(words="no such"),
        Wanted(label=("batch", "7")),
    ):
        assert min(work_s(wanted) for _ in range(2)) < 0.5, wanted
    writer.dispose()


def test_an_older_record_gets_the_indexes_and_loses_the_one_that_was_replaced(tmp_path: Path) -> None:
    writer = open_engine(f"sqlite:///{tmp_path / 'old.db'}", writer=True)
    create_tables(writer)
    with writer.begin() as connection:
        for name in ("run_recent", "run_graph", "run_again", "ledger_spend"):
            connection.execute(text(f"DROP INDEX {name}"))
        connection.execute(text("CREATE INDEX ledger_day ON ledger (tenant, day)"))
    create_tables(writer)
    names = {index["name"] for table in ("run", "ledger") for index in inspect(writer).get_indexes(table)}
    assert names >= {"run_recent", "run_graph", "run_again", "ledger_spend"}
    assert "ledger_day" not in names
    writer.dispose()


def test_who_is_not_held_to_limits_is_told_by_the_policy_that_holds(tmp_path: Path) -> None:
    writer = open_engine(f"sqlite:///{tmp_path / 'r.db'}", writer=True)
    create_tables(writer)
    store_tenants(writer, ["acme", "beta", "gamma", "gone"])
    later = {"acme": "observe", "beta": "off", "gone": "off"}
    with writer.begin() as connection:
        rows = [
            {"tenant": tenant, "version": 2, "fields": Policy(enforcement=how).model_dump_json(), "at": 0} for tenant, how in later.items()
        ]  # type: ignore[arg-type]
        connection.execute(insert(t.policy), rows)
        connection.execute(text("UPDATE tenant SET status = 'closed' WHERE id = 'gone'"))
    assert not_enforced(writer) == [("acme", "observe"), ("beta", "off")]
    writer.dispose()
