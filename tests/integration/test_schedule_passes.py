"""Passes over schedules against a real Redis, recorder and database, with a clock of the test's own: what dies, races and comes twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from running import producer, until
from ulid import ULID

from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.schedules.due import GRACE_MS
from orchestrator.schedules.ticker import TRIED_FOR_MS, Passed, Ticker
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store.schedules import ScheduleView, TickView
from tenancy.errors import Conflict, GraphInvalid, Refused, Unavailable, Unknown
from tests.integration.hands import make_recorder

pytestmark = pytest.mark.both_records

HOUR = 3_600_000


class Died(Exception):
    """The process that made the pass is gone."""


class Platform:
    """Redis, a recorder and a client; no workers: runs are on record and wait."""

    def __init__(self, server: RedisServer, settings: Settings) -> None:
        self.server, self.settings = server, settings
        self.begin_to_record()
        self.client = producer(settings)

    def begin_to_record(self) -> None:
        self.stop = threading.Event()
        self.thread = threading.Thread(target=make_recorder(self.server, self.settings).run, args=[self.stop], daemon=True)
        self.thread.start()

    def end_recording(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def close(self) -> None:
        self.client.kernel.link.close()
        self.client.kernel.app.close()
        self.client.engine.dispose()
        self.end_recording()


class Cell:
    """A tenant of the platform with a clock of its own, which shows `start`, the next whole hour; its schedules begin there."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.client = platform, platform.client
        self.tenant = self.client.tenants.create(f"t-{str(ULID())[-12:].lower()}", by="ann").id
        until(lambda: self.real_ms() % HOUR < HOUR - 5_000)  # schedules are made before the hour
        self.start = (self.real_ms() // HOUR + 1) * HOUR
        self.now = self.start
        self.ticker = Ticker(self.client.kernel, self.client.engine, lambda: self.now)

    def real_ms(self) -> int:
        return self.client.kernel.link.now_ms()

    def close(self) -> None:
        for each in self.client.schedules.list(self.tenant):
            self.client.schedules.delete(each.name, tenant=self.tenant)

    def schedule(self, name: str = "s", graph: Graph | None = None, **terms: Any) -> str:
        self.client.schedules.create(name, graph or noop(), **{"tenant": self.tenant, "every_s": 3600, "by": "ann", **terms})
        return name

    def end(self, tick: TickView) -> None:
        """End the run of a time."""
        self.client.cancel(str(tick.run_id))
        assert self.client.run(str(tick.run_id)).wait(20).outcome == "cancelled"

    def shown(self, name: str = "s") -> ScheduleView:
        return self.client.schedules.show(name, tenant=self.tenant)

    def at(self, hours: float, ticker: Ticker | None = None) -> Passed:
        self.now = self.start + round(hours * HOUR)
        return (ticker or self.ticker).tick()

    def ticks(self, name: str = "s") -> list[tuple[float, str]]:
        return [((tick.at * 1000 - self.start) / HOUR, tick.state) for tick in reversed(self.seen(name))]

    def seen(self, name: str = "s") -> tuple[TickView, ...]:
        return self.client.schedules.ticks(name, tenant=self.tenant, limit=1000)

    def newest(self, name: str = "s") -> TickView:
        return self.seen(name)[0]

    def runs(self) -> Counter[str]:
        return Counter(
            str(run.key) for run in read.list_runs(self.client.engine, tenant=self.tenant, limit=1000) if run.status != "refused"
        )

    def keys(self, *hours: int, name: str = "s") -> Counter[str]:
        moments = (datetime.fromtimestamp(self.start / 1000 + hour * 3600).astimezone() for hour in hours)
        return Counter(f"schedule.{name}.{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for moment in moments)


def noop(*inputs: Any) -> Graph:
    return Graph.parse({"name": "nightly", "nodes": [{"id": "a", "task": "synthetic.noop", "params": {"inputs": list(inputs)}}]})


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    place = tmp_path_factory.mktemp("schedules")
    server = RedisServer(place / "redis")
    server.start()
    made = Platform(server, Settings(home=place, redis_url=server.url))
    yield made
    made.close()
    server.stop()


@pytest.fixture
def cell(platform: Platform) -> Iterator[Cell]:
    made = Cell(platform)
    yield made
    made.close()


def test_a_time_runs_once_under_its_key_with_its_terms(cell: Cell) -> None:
    cell.schedule(budget="0.5", priority="LOW", labels={"team": "night"})
    assert cell.at(-0.01) == Passed()
    assert cell.at(0) == Passed(decided=1, submitted=1)
    assert cell.at(0) == cell.at(0.5) == Passed()
    (run,) = read.list_runs(cell.client.engine, tenant=cell.tenant)
    assert Counter([run.key]) == cell.keys(0)
    assert (run.budget, run.priority, run.labels["team"], run.labels["schedule"]) == (500_000, 7, "night", "s")
    assert cell.newest().run_id == run.run_id


def test_two_at_once_however_their_clocks_differ_run_each_time_once(cell: Cell) -> None:
    cell.schedule(catch_up="all", overlap="allow")
    ahead, behind = (Ticker(cell.client.kernel, cell.client.engine, lambda by=by: cell.now + by) for by in (60_000, -60_000))
    for hours in range(4):
        cell.now = cell.start + hours * HOUR
        both = threading.Barrier(2)

        def steps(ticker: Ticker, both: threading.Barrier = both) -> None:
            both.wait(10)
            passed = Passed()
            for _ in range(3):  # without the lease, which only saves work
                ticker.decide(passed)
                ticker.submit(passed)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(steps, (ahead, behind)))
    assert cell.runs() == cell.keys(0, 1, 2, 3)
    assert cell.ticks() == [(hour, "submitted") for hour in range(4)]


@pytest.mark.parametrize("step", ["decided", "submitted", "noted"])
def test_whoever_dies_between_two_steps_leaves_what_the_next_pass_completes(cell: Cell, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell.schedule(overlap="queue", catch_up="all")
    doomed = Ticker(cell.client.kernel, cell.client.engine, lambda: cell.now)
    submit, ask = doomed.client.submit, doomed.decide

    def dying(*_: Any, **__: Any) -> Any:
        raise Died

    def submit_and_die(*arguments: Any, **named: Any) -> Any:
        submit(*arguments, **named)
        raise Died

    match step:
        case "decided":
            monkeypatch.setattr(doomed.client, "submit", dying)
        case "submitted":
            monkeypatch.setattr(doomed.client, "submit", submit_and_die)
        case _:
            monkeypatch.setattr(doomed, "submit", dying)
    with pytest.raises(Died):
        cell.at(0, doomed)
    assert doomed.decide == ask
    assert cell.ticks() == [(0, "due")]
    assert cell.at(0.01) == Passed(submitted=1)
    assert cell.runs() == cell.keys(0)
    assert cell.ticks() == [(0, "submitted")]


def test_a_recorder_that_dies_in_between_puts_a_pass_off_and_repeats_nothing(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    cell.schedule()
    monkeypatch.setattr("orchestrator.recorder.ask.ANSWER_S", 0.5)
    cell.platform.end_recording()
    with pytest.raises(Unavailable):
        cell.at(0)
    assert cell.ticks() == []
    cell.platform.begin_to_record()
    monkeypatch.undo()
    cell.at(0.01)  # the decision of the pass that gave up was taken when the recorder came back, or this one's is
    cell.at(0.01)
    assert (cell.runs(), cell.ticks()) == (cell.keys(0), [(0, "submitted")])


@pytest.mark.parametrize(
    ("catch_up", "ticks", "ran"),
    [
        ("none", [(0, "submitted"), (5, "missed")], (0,)),
        ("one", [(0, "submitted"), (4, "missed"), (5, "submitted")], (0, 5)),
        ("all", [(hour, "submitted") for hour in range(6)], (0, 1, 2, 3, 4, 5)),
    ],
)
def test_after_an_outage_the_policy_says_which_of_the_missed_times_run(
    cell: Cell, catch_up: str, ticks: list[tuple[float, str]], ran: tuple[int, ...]
) -> None:
    cell.schedule(catch_up=catch_up, overlap="allow")
    cell.at(0)
    cell.at(5.5)
    cell.at(5.51)
    assert (cell.ticks(), cell.runs()) == (ticks, cell.keys(*ran))


def test_a_time_that_comes_while_a_run_is_live_is_left_out_or_waits_for_its_end(cell: Cell) -> None:
    cell.schedule("skips")
    cell.schedule("queues", overlap="queue")
    cell.schedule("allows", overlap="allow")
    for hours in (0, 1, 2):
        cell.at(hours)
    assert cell.ticks("skips") == [(0, "submitted"), (1, "skipped"), (2, "skipped")]
    assert cell.ticks("queues") == [(0, "submitted"), (1, "due"), (2, "due")]
    assert cell.ticks("allows") == [(0, "submitted"), (1, "submitted"), (2, "submitted")]
    assert cell.newest("skips").reason == "the run before it was still live"
    for name in ("skips", "queues"):
        cell.end(cell.seen(name)[2])
    cell.at(2.1)
    cell.at(3)
    assert cell.ticks("skips")[-1] == (3, "submitted")
    assert cell.ticks("queues") == [(0, "submitted"), (1, "submitted"), (2, "due"), (3, "due")]
    assert [tick.outcome for tick in cell.seen("queues")] == [None, None, None, "cancelled"]


def test_a_paused_schedule_submits_nothing_and_makes_nothing_up_when_it_goes_on(cell: Cell) -> None:
    cell.schedule(catch_up="all", overlap="queue")
    cell.at(0), cell.at(1)
    assert cell.client.schedules.pause("s", tenant=cell.tenant, by="ann", reason="holiday") is True
    assert cell.client.schedules.pause("s", tenant=cell.tenant) is False
    assert cell.shown().next_at is None
    cell.end(cell.seen("s")[1])
    assert cell.at(2) == Passed()
    assert cell.client.schedules.resume("s", tenant=cell.tenant) is True
    assert cell.client.schedules.resume("s", tenant=cell.tenant) is False
    assert cell.at(2) == Passed(decided=1, submitted=1), "the one that waited goes; the record's clock, which resumed it, is still before 2"
    lines = [(line.action, line.actor, line.reason) for line in read.audit(cell.client.engine, cell.tenant) if line.target == "schedule:s"]
    assert lines[:2] == [("schedule.created", "ann", None), ("schedule.paused", "ann", "holiday")]
    assert [action for action, _, _ in lines[2:]] == ["schedule.resumed"]


def test_changes_hold_from_the_next_time_on(cell: Cell) -> None:
    cell.schedule(every_s=3600)
    assert cell.client.schedules.set("s", tenant=cell.tenant, by="bea", cron="30 * * * *", overlap="allow") == {
        "cron": (None, "30 * * * *"),
        "every_s": (3600, None),
        "overlap": ("skip", "allow"),
    }
    assert cell.client.schedules.set("s", tenant=cell.tenant, overlap="allow") == {}
    cell.at(0.5)
    assert [hours % 1 for hours, _ in cell.ticks()][-1:] == [0.5]
    assert [state for _, state in cell.ticks()][-1:] == ["submitted"]
    for wrong in ({"cron": "x"}, {"overlap": "never"}, {"colour": "red"}, {"budget": "1e3"}):
        with pytest.raises(Refused):
            cell.client.schedules.set("s", tenant=cell.tenant, **wrong)


def test_a_time_that_there_is_no_room_for_is_tried_again_and_given_up_after_an_hour(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    cell.schedule()

    def unknown(*_: Any, **__: Any) -> Any:
        raise GraphInvalid(("node 'a': unknown task 'synthetic.noop'",))

    monkeypatch.setattr(cell.ticker.client, "submit", unknown)
    assert cell.at(0) == Passed(decided=1, put_off=1)
    assert cell.at(0.001) == Passed(), "not every two seconds"
    assert cell.at(0.1) == Passed(put_off=1)
    monkeypatch.undo()
    assert cell.at(0.2) == Passed(submitted=1)
    monkeypatch.setattr(cell.ticker.client, "submit", unknown)
    cell.end(cell.newest())
    cell.at(1)
    cell.now += TRIED_FOR_MS + 2 * HOUR
    assert cell.ticker.tick().refused == 1
    assert [(tick.state, tick.reason) for tick in cell.seen("s") if tick.state == "refused"] == [
        ("refused", "the graph has 1 problem: - node 'a': unknown task 'synthetic.noop'")
    ]


def test_a_tenant_that_takes_no_runs_has_its_times_refused_with_the_reason(cell: Cell) -> None:
    cell.schedule()
    cell.client.tenants.suspend(cell.tenant)
    cell.at(0)
    assert (cell.newest().state, cell.newest().reason) == ("refused", f"tenant {cell.tenant!r} is suspended and takes no new runs")
    assert cell.runs() == {}


def test_the_scheduled_time_and_day_are_in_the_params_of_each_run(cell: Cell) -> None:
    graph = noop({"$schedule": "date"}, {"$schedule": "time"}, 7)
    with pytest.raises(GraphInvalid, match="nothing schedules this run"):
        cell.client.submit(graph)
    cell.schedule(graph=graph, timezone="America/New_York")
    cell.at(0)
    text = read.get_graph(cell.client.engine, str(cell.newest().run_id))
    assert text is not None
    local = cell.shown().terms.timetable.local(cell.start)
    assert Graph.parse(text).by_id["a"].params["inputs"] == [local.date().isoformat(), local.isoformat(), 7]
    for wrong in ({"$schedule": "day"}, {"$schedule": "date", "x": 1}, {"$schedule": ["date"]}):
        with pytest.raises(GraphInvalid, match="stands alone and is time or date"):
            noop(wrong)


def test_what_cannot_be_is_refused_in_one_sentence_and_leaves_nothing(cell: Cell) -> None:
    create = cell.client.schedules.create
    for arguments, error in (
        ({"cron": "* * * *"}, Refused),
        ({"every_s": 60, "tenant": "nobody"}, Unknown),
        ({"every_s": 60, "budget": "-1"}, Refused),
        ({}, Refused),
    ):
        with pytest.raises(error):
            create("s", noop(), **{"tenant": cell.tenant, **arguments})
    with pytest.raises(Refused, match="63 letters"):
        create("a/b", noop(), tenant=cell.tenant, every_s=60)
    with pytest.raises(GraphInvalid, match="unknown task"):
        create("s", Graph.parse({"name": "g", "nodes": [{"id": "a", "task": "nowhere.known"}]}), tenant=cell.tenant, every_s=60)
    for call in ("show", "pause", "resume", "delete", "ticks"):
        with pytest.raises(Unknown):
            getattr(cell.client.schedules, call)("s", tenant=cell.tenant)
    assert cell.client.schedules.list(cell.tenant) == ()


def test_what_is_so_already_is_no_conflict_and_another_under_its_name_is(cell: Cell) -> None:
    cell.schedule(every_s=60)
    assert cell.schedule(every_s=60) == "s"
    with pytest.raises(Conflict, match="another schedule 's'"):
        cell.schedule(every_s=61)
    cell.client.schedules.delete("s", tenant=cell.tenant)
    cell.schedule(every_s=61)
    assert cell.shown().terms.every_s == 61


def test_a_clock_that_jumps_ahead_and_back_runs_no_time_twice(cell: Cell) -> None:
    cell.schedule(overlap="allow", catch_up="all")
    for hours in (0, 3, 1, 2, 3, 4):
        cell.at(hours)
    assert cell.runs() == cell.keys(0, 1, 2, 3, 4)
    assert GRACE_MS < HOUR
