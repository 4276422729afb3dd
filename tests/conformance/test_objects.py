"""Objects of results: whole or not there, in a directory and in any store of fsspec's; collected when nobody needs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert
from ulid import ULID

from orchestrator.collector import Collector
from orchestrator.objects import Objects, Remote, open_objects
from orchestrator.results import NotStorable, ResultStore
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from tenancy.errors import HeadgateError, Unavailable

pytestmark = pytest.mark.both_records

DAY_MS = 86_400_000
NOW_MS = 1_900_000_000_000
TTL_S = 7 * 86_400.0


@pytest.fixture(params=["{}/results", "file://{}/results", "local://{}/results", "memory://{}/results"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    return open_objects(request.param.format(tmp_path))


def test_an_object_is_read_listed_and_removed_by_its_name(objects: Objects) -> None:
    assert (objects.runs(), objects.names("r1")) == ([], [])
    for name in ("r1/1/a.1.json", "r1/1/a.2.json", "r1/2/b.c.1.json", "r2/1/a.1.json"):
        objects.write(name, name.encode())
    objects.write("r1/1/a.1.json", b"again")
    assert objects.read("r1/1/a.1.json") == b"again"
    assert (objects.runs(), objects.names("r1")) == (["r1", "r2"], ["r1/1/a.1.json", "r1/1/a.2.json", "r1/2/b.c.1.json"])
    assert objects.remove(["r1/1/a.1.json", "r1/1/a.1.json", "r2/1/a.1.json"]) == 2
    assert (objects.names("r1"), objects.names("r2")) == (["r1/1/a.2.json", "r1/2/b.c.1.json"], [])
    with pytest.raises(KeyError):
        objects.read("r1/1/a.1.json")


def test_a_result_is_the_same_from_every_store_and_one_that_is_gone_says_which_settings_to_look_at(objects: Objects) -> None:
    store = ResultStore(objects, 10, TTL_S)
    text = store.encode(["é" * 20], "r1", 1, "a", 3)
    assert text == "@r1/1/a.3.json"
    assert store.decode(text) == ["é" * 20]
    assert store.encode(1, "r1", 1, "b", 1) == "1"
    objects.remove(["r1/1/a.3.json"])
    with pytest.raises(
        Unavailable, match=r"r1/1/a\.3\.json of a result is not in .*/results: it was kept for 7 days .*HEADGATE_RESULTS_URL"
    ):
        store.decode(text)
    with pytest.raises(NotStorable):
        store.encode({1}, "r1", 1, "a", 1)


def test_a_store_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(HeadgateError, match="fsspec knows no nonsense://"):
        Remote("nonsense://bucket")
    with pytest.raises(HeadgateError, match="needs a package that is not installed"):
        Remote("s3://bucket/results")
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(Unavailable, match=f"could not be written to {place}"):
        open_objects(str(place)).write("r/1/a.1.json", b"")
    with pytest.raises(Unavailable, match="did not answer"):
        open_objects(f"local://{place}").write("r/1/a.1.json", b"")


def test_a_child_finds_the_store_wherever_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = Settings(home=Path("home"), results_url="shared").environment()
    assert environment["HEADGATE_RESULTS_URL"] == str(tmp_path / "shared")
    assert Settings(results_url="memory://shared").environment()["HEADGATE_RESULTS_URL"] == "memory://shared"


class Record:
    """A record with runs whose nodes have objects."""

    def __init__(self, engine: Engine, objects: Objects) -> None:
        self.engine, self.objects = engine, objects
        create_tables(engine)

    def run(self, generation: int = 1, ended_days_ago: float | None = 0.0, run: str = "", **results: str) -> str:
        run = run or str(ULID.from_timestamp((NOW_MS - 10 * DAY_MS) / 1000)).lower()
        status, at = ("running", None) if ended_days_ago is None else ("ended", int(NOW_MS - ended_days_ago * DAY_MS))
        with self.engine.begin() as connection:
            row = {"run_id": run, "generation": generation, "tenant": "default", "status": status, "finished_at": at}
            row |= {"submitted_at": 0, "cost_micros": 0, "labels": "{}"}
            connection.execute(insert(t.run).values(row))
            for node, result in results.items():
                values = {"run_id": run, "generation": generation, "node_id": node, "result": result.replace("RUN", run)}
                costs = {column.name: 0 for column in t.node.columns if column.name.startswith("cost_")}
                connection.execute(insert(t.node).values(values | costs))
        return run

    def write(self, run: str, *names: str) -> None:
        for name in names:
            self.objects.write(f"{run}/{name}", json.dumps(name).encode())

    def collect(self) -> int:
        return Collector(self.objects, self.engine, TTL_S).collect(NOW_MS)

    def left(self, run: str) -> list[str]:
        return [name.partition("/")[2] for name in self.objects.names(run)]


@pytest.fixture
def record(database_url: str, objects: Objects) -> Record:
    return Record(open_engine(database_url, writer=True), objects)


def test_what_nobody_refers_to_goes_when_the_run_is_over_and_the_rest_after_its_time(record: Record) -> None:
    live = record.run(ended_days_ago=None, a="@RUN/1/a.2.json")
    ended = record.run(ended_days_ago=6.9, a="@RUN/1/a.2.json", small='"@inline"')
    expired = record.run(ended_days_ago=7.1, a="@RUN/1/a.2.json")
    for run in (live, ended, expired):
        record.write(run, "1/a.1.json", "1/a.2.json")
    assert record.collect() == 3
    assert [record.left(run) for run in (live, ended, expired)] == [["1/a.1.json", "1/a.2.json"], ["1/a.2.json"], []]
    record.write(expired, "1/a.3.json")  # by an execution that nobody waits for any more
    assert record.collect() == 1


def test_what_a_later_generation_adopted_stays_as_long_as_that_one_needs_it(record: Record) -> None:
    run = record.run(1, ended_days_ago=8, a="@RUN/1/a.1.json", b="@RUN/1/b.1.json")
    record.run(2, ended_days_ago=1, run=run, a="@RUN/1/a.1.json", b="@RUN/2/b.1.json")
    again = record.run(1, ended_days_ago=8, a="@RUN/1/a.1.json")
    record.run(2, ended_days_ago=None, run=again)
    record.write(run, "1/a.1.json", "1/b.1.json", "2/b.1.json")
    record.write(again, "1/a.1.json")
    assert record.collect() == 1
    assert record.left(run) == ["1/a.1.json", "2/b.1.json"]
    assert record.left(again) == ["1/a.1.json"]  # the generation that goes on may adopt it


def test_logs_of_all_attempts_stay_as_long_as_their_run_and_go_with_it(record: Record) -> None:
    ended = record.run(ended_days_ago=6.9, a="@RUN/1/a.2.json")
    expired = record.run(ended_days_ago=7.1)
    again = record.run(1, ended_days_ago=8)
    record.run(2, ended_days_ago=1, run=again)
    for run in (ended, expired, again):
        record.write(run, "1/a.1.json", "1/a.1.log", "1/a.2.log")
    record.collect()
    assert [record.left(run) for run in (ended, expired, again)] == [["1/a.1.log", "1/a.2.log"], [], ["1/a.1.log", "1/a.2.log"]]


def test_objects_of_runs_that_the_record_does_not_know_go_by_the_age_of_the_run(record: Record) -> None:
    old, young = (str(ULID.from_timestamp((NOW_MS - days * DAY_MS) / 1000)).lower() for days in (8, 1))
    for run in (old, young, "not-a-run"):
        record.write(run, "1/a.1.json")
    assert record.collect() == 1
    assert [record.left(run) for run in (old, young, "not-a-run")] == [[], ["1/a.1.json"], ["1/a.1.json"]]
