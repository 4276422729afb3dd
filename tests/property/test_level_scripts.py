"""Levels are entered and left exactly at their thresholds, and act with nobody running: the scripts against whole numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from clock import NOW_KEY, moved_clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cost.levels import rate_ppm
from orchestrator.embedded.redis_server import RedisServer
from tenancy.link import Link
from tenancy.policy import MICROS_MAX

SERVER = "server-1"
MIDNIGHT_MS = 1_798_675_200_000
"""2026-12-31, 00:00 UTC"""
DAY_MS = 86_400_000
RULES = (20, 80, 70)


class Platform:
    """One tenant, one worker, and ordinary executions that reserve and settle what a test wants."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.client: Any = link.client
        self.client.flushall()
        self.client.hset("hg1:epoch", mapping={"epoch": 1, "server": SERVER, "seq": 0})
        self.at(MIDNIGHT_MS + 12 * 3_600_000)
        self.executions = 0
        self.attempts: dict[str, int] = {}
        link.call("tenancy/transport/enroll", "w1", 10_000, json.dumps({"name": "w", "pools": ["default"], "tasks": ["t"], "slots": 4}))

    def at(self, now_ms: int) -> None:
        self.client.set(NOW_KEY, now_ms)

    def policy(self, limit: int, **fields: Any) -> None:
        row = {"limit_day": limit, "max_runs": 10, "status": "active", "version": 1, **fields}
        self.client.hset("hg1:tenant:acme", mapping=row)
        self.link.call("cost/level", "acme")
        self.link.call("tenancy/transport/refresh", "acme")

    def reserve(self, amount: int) -> tuple[str, str]:
        """Begin an ordinary task; returns its id and what the gate said."""
        self.executions += 1
        task = f"t{self.executions}"
        reply = self.link.call("cost/task_begin", task, "t", "acme", amount, "claim", "", "", "", "w", 60_000)
        self.attempts[task] = reply[1]
        return task, str(reply[0])

    def settle(self, task: str, amount: int) -> None:
        assert self.link.call("cost/task_report", task, "t", self.attempts[task], f"llm={amount}" if amount else "", "signal") == "settled"

    def spend(self, amount: int) -> str:
        task, said = self.reserve(amount)
        assert said == "run"
        self.settle(task, amount)
        return task

    def admit(self, run: str, floor: int = 0) -> list[Any]:
        want = {"graph": "g", "total": 1, "estimate": str(floor), "floor": str(floor), "budget": "", "priority": 5}
        want |= {"max_parallel": "", "pools": [""], "roots": {}, "tasks": ["t"]}
        return list(self.link.call("orchestrator/state/admit", run, 1, "acme", json.dumps(want), *RULES))

    def put(self) -> None:
        self.link.call("tenancy/transport/put", "{}", "acme", 5, "default", 10, "", 0, 0, "", "t", "[]")

    def pop(self) -> Any:
        return self.link.call("tenancy/transport/pop", "w1", "default", 1_000)

    def events(self) -> list[dict[str, Any]]:
        rows = [json.loads(fields["e"]) for _, fields in self.client.xrange("hg1:events")]
        return [row for row in rows if row["t"].startswith("level.")]

    def told(self) -> list[tuple[str, str, int]]:
        return [(row["t"].removeprefix("level."), row["level"], row["entry"]) for row in self.events()]


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    server = RedisServer(tmp_path_factory.mktemp("levels"))
    server.start()
    with moved_clock():
        yield Link(server.client_url, server=SERVER)
    server.stop()


@pytest.fixture
def platform(link: Link) -> Platform:
    return Platform(link)


@pytest.mark.parametrize(
    ("committed", "entered"),
    [
        (7_999, []),
        (8_000, ["WARNING"]),
        (8_999, ["WARNING"]),
        (9_000, ["WARNING", "CRITICAL"]),
        (9_999, ["WARNING", "CRITICAL"]),
        (10_000, ["WARNING", "CRITICAL", "EXCEEDED"]),
    ],
)
def test_a_level_is_entered_at_its_threshold_and_a_jump_enters_those_in_between(
    platform: Platform, committed: int, entered: list[str]
) -> None:
    platform.policy(10_000)
    task, said = platform.reserve(committed)
    assert said == "run"
    assert platform.told() == [("entered", level, 1) for level in entered]
    for event in platform.events():
        assert event["cause"] == f"task.{task}.0.t.{platform.attempts[task]}", "the execution that tripped it"
        assert (event["period"], event["committed"], event["limit"]) == ("2026-12-31", str(committed), "10000")
        assert event["rate_ppm"] == committed * 100


def test_a_tenant_that_is_only_observed_is_told_what_would_have_been_done_and_nothing_is(platform: Platform) -> None:
    platform.policy(10_000, enforcement="observe", on_warning="hold", on_exceeded="suspend")
    platform.spend(10_001)
    assert [(row["level"], row.get("would_act")) for row in platform.events()] == [
        ("WARNING", "hold"),
        ("CRITICAL", None),
        ("EXCEEDED", "suspend"),
    ]
    assert platform.admit("r1")[0] == "admitted"
    platform.put()
    assert len(platform.pop()) == 3


def test_a_level_is_left_five_points_lower_and_entered_again_under_the_next_number(platform: Platform) -> None:
    platform.policy(10_000)
    platform.spend(7_400)
    first, _ = platform.reserve(600)
    platform.settle(first, 100)  # 75.00 %
    assert platform.told() == [("entered", "WARNING", 1)]
    platform.client.hset("hg1:tenant:acme", "limit_day", 10_001)
    platform.link.call("cost/level", "acme")  # 74.99 %
    assert platform.told()[1:] == [("left", "WARNING", 1)]
    platform.spend(2_000)
    assert platform.told()[2:] == [("entered", "WARNING", 2), ("entered", "CRITICAL", 1)]
    assert platform.client.hget("hg1:level:acme", "day") == "2026-12-31|110|2,1,0"


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_thresholds_are_exact_for_every_limit_and_rate(link: Link, data: st.DataObject) -> None:
    limit = data.draw(st.one_of(st.integers(1, 1_000), st.integers(1, MICROS_MAX), st.integers(MICROS_MAX - 1_000, MICROS_MAX)))
    percent = data.draw(st.integers(1, 98))
    edge = -(-limit * percent // 100)
    committed = min(limit, max(0, edge + data.draw(st.integers(-2, 2))))
    platform = Platform(link)
    platform.policy(limit, warn=percent, critical=99, exceeded=100)
    _, said = platform.reserve(committed)
    assert said == "run"
    expected = [level for level, at in (("WARNING", percent), ("CRITICAL", 99), ("EXCEEDED", 100)) if committed * 100 >= at * limit]
    assert [row["level"] for row in platform.events()] == expected
    assert all(row["rate_ppm"] == rate_ppm(committed, limit) for row in platform.events())


def test_a_limit_of_nothing_is_exceeded_and_refuses_a_run_that_costs_nothing(platform: Platform) -> None:
    platform.policy(0)
    assert [row["level"] for row in platform.events()] == ["WARNING", "CRITICAL", "EXCEEDED"]
    assert platform.admit("r1")[:2] == ["refused", "budget"]
    platform.policy(1)
    assert platform.told()[3:] == [("left", "WARNING", 1), ("left", "CRITICAL", 1), ("left", "EXCEEDED", 1)]
    assert platform.admit("r2")[0] == "admitted"


def test_a_spent_budget_refuses_new_runs_until_midnight_and_unfunded_executions_by_amount(platform: Platform) -> None:
    platform.policy(1_000)
    platform.spend(1_000)
    assert platform.admit("r1") == ["refused", "budget", "1000", "1000", str(DAY_MS // 2)]
    assert platform.reserve(1)[1] == "refused"
    assert platform.reserve(0)[1] == "run", "the gate refuses amounts, not levels"
    platform.at(MIDNIGHT_MS + DAY_MS)
    assert platform.admit("r2", floor=1)[0] == "admitted", "a new day is HEALTHY"
    platform.spend(999)
    assert platform.events()[-1]["period"] == "2027-01-01"
    assert platform.events()[-1]["entry"] == 1, "entries are counted in each period"


def test_a_month_has_levels_of_its_own(platform: Platform) -> None:
    platform.policy(10_000, limit_month=1_000)
    platform.spend(850)
    assert [(row["period"], row["level"]) for row in platform.events()] == [("2026-12", "WARNING")]
    platform.at(MIDNIGHT_MS + DAY_MS)
    platform.spend(850)
    assert [(row["period"], row["level"]) for row in platform.events()][1:] == [("2027-01", "WARNING")]


def test_hold_lets_new_runs_wait_from_its_level_on_and_in_again_when_the_limit_is_raised(platform: Platform) -> None:
    platform.policy(1_000, on_warning="hold")
    platform.put()
    platform.spend(800)
    assert platform.admit("r1")[:2] == ["held", "budget"]
    assert len(platform.pop()) == 3, "what was let in goes on"
    assert platform.link.call("orchestrator/state/let_in", 5, *RULES) == [0]
    platform.policy(2_000, on_warning="hold")
    assert platform.link.call("orchestrator/state/let_in", 5, *RULES) == [0, "r1.1"]


def test_suspend_lets_nothing_start_until_the_level_is_left(platform: Platform) -> None:
    platform.policy(1_000, on_critical="suspend")
    task, _ = platform.reserve(400)
    platform.put()
    held = platform.pop()
    platform.put()
    platform.spend(500)
    assert platform.pop()[0] == "SLEEP"
    assert platform.admit("r1")[:2] == ["held", "budget"]
    assert platform.reserve(0)[1] == "refused", "of another transport"
    assert platform.link.call("tenancy/transport/ack", "w1", held[0], held[2]) == 1
    assert platform.pop()[0] == "SLEEP", "a place that becomes free is not used"
    platform.settle(task, 300)  # what runs finishes: 80 %
    assert len(platform.pop()) == 3


def test_suspend_ends_with_its_day_although_nobody_comes(platform: Platform) -> None:
    platform.policy(1_000, on_exceeded="suspend")
    platform.put()
    platform.spend(1_000)
    assert platform.pop() == ["SLEEP", 1_000]
    platform.at(MIDNIGHT_MS + DAY_MS - 300)
    assert platform.pop() == ["SLEEP", 300], "a worker sleeps no longer than that"
    platform.at(MIDNIGHT_MS + DAY_MS)
    assert len(platform.pop()) == 3


def test_suspend_ends_when_the_policy_does_not_say_so_any_more(platform: Platform) -> None:
    platform.policy(1_000, on_exceeded="suspend")
    platform.put()
    platform.spend(1_000)
    assert platform.pop()[0] == "SLEEP"
    platform.policy(1_000, on_exceeded="notify")
    assert len(platform.pop()) == 3


def test_the_strongest_action_of_all_levels_that_are_entered_holds(platform: Platform) -> None:
    platform.policy(1_000, on_warning="suspend", on_exceeded="notify", limit_month=1_000)
    platform.put()
    platform.spend(1_000)
    assert platform.pop()[0] == "SLEEP"
    platform.at(MIDNIGHT_MS + DAY_MS)
    assert len(platform.pop()) == 3, "the month is over as well"
