"""What becomes of a schedule's times, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.schedules.due import AT_ONCE, GRACE_MS, WAITING_MAX, decide, jitter_ms, ready
from orchestrator.schedules.terms import Terms

HOUR = 3_600_000
START = 500_000 * HOUR


def decided(now: int, since: int = START, live: int = 0, waiting: int = 0, **terms: Any) -> tuple[list[tuple[float, str]], float]:
    """What becomes of the times of an hourly schedule, as hours since START, and up to where that is decided."""
    found = decide(Terms(**{"every_s": 3600, **terms}), "acme/nightly", decided_to=since, now=now, live=live, waiting=waiting)
    return [((tick.at - START) / HOUR, tick.state) for tick in found.ticks], (found.to - START) / HOUR


def test_a_time_is_due_when_it_has_come_and_not_before() -> None:
    assert decided(START + HOUR - 1) == ([], 0)
    assert decided(START + HOUR) == ([(1, "due")], 1)
    assert decided(START + HOUR, since=START + HOUR) == ([], 1)
    assert decided(START - HOUR) == ([], 0), "a clock that was set back decides nothing"


@pytest.mark.parametrize(
    ("catch_up", "overlap", "becomes"),
    [
        ("none", "allow", [(3, "missed"), (4, "due")]),
        ("one", "allow", [(3, "missed"), (4, "due")]),
        ("all", "allow", [(1, "due"), (2, "due"), (3, "due"), (4, "due")]),
        ("all", "queue", [(1, "due"), (2, "due"), (3, "due"), (4, "due")]),
    ],
)
def test_after_an_outage_that_ends_on_time(catch_up: str, overlap: str, becomes: list[tuple[int, str]]) -> None:
    assert decided(START + 4 * HOUR + 1, catch_up=catch_up, overlap=overlap) == (becomes, 4)


@pytest.mark.parametrize(
    ("catch_up", "becomes"),
    [
        ("none", [(4, "missed")]),
        ("one", [(3, "missed"), (4, "due")]),
        ("all", [(1, "due"), (2, "due"), (3, "due"), (4, "due")]),
    ],
)
def test_after_an_outage_that_ends_between_two_times(catch_up: str, becomes: list[tuple[int, str]]) -> None:
    assert decided(START + 4 * HOUR + HOUR // 2, catch_up=catch_up, overlap="allow") == (becomes, 4)


def test_the_grace_is_as_long_as_it_says() -> None:
    assert decided(START + HOUR + GRACE_MS - 1, catch_up="none") == ([(1, "due")], 1)
    assert decided(START + HOUR + GRACE_MS, catch_up="none") == ([(1, "missed")], 1)


def test_what_was_missed_is_counted_in_its_reason_whatever_its_number() -> None:
    few = decide(Terms(every_s=3600, catch_up="none"), "s", decided_to=START, now=START + 4 * HOUR + HOUR // 2, live=0, waiting=0)
    assert [tick.reason for tick in few.ticks] == ["4 times, from 2027-01-15T09:00:00+00:00 on, passed while nobody decided them"]
    year = decide(Terms(cron="* * * * *"), "s", decided_to=START, now=START + 9_000 * HOUR, live=0, waiting=0)
    assert [tick.state for tick in year.ticks] == ["missed", "due"]
    assert year.ticks[0].reason.startswith("more than 1000 times, from ")


def test_a_time_that_comes_while_a_run_is_live_is_left_out_waits_or_runs() -> None:
    now = START + 2 * HOUR
    assert decided(now, since=now - HOUR, live=1, overlap="skip") == ([(2, "skipped")], 2)
    assert decided(now, since=now - HOUR, waiting=1, overlap="skip") == ([(2, "skipped")], 2)
    assert decided(now, since=now - HOUR, live=1, overlap="queue") == ([(2, "due")], 2)
    assert decided(now, since=now - HOUR, live=1, waiting=WAITING_MAX, overlap="queue") == ([(2, "skipped")], 2)
    assert decided(now, since=now - HOUR, live=5, waiting=5, overlap="allow") == ([(2, "due")], 2)


def test_one_that_waits_goes_when_nothing_is_live_and_in_its_order() -> None:
    assert ready("queue", [1, 2, 3], live=1) == ()
    assert ready("queue", [1, 2, 3], live=0) == [1]
    assert ready("allow", [1, 2], live=3) == ready("skip", [1, 2], live=3) == [1, 2]


def test_more_times_than_one_decision_takes_are_left_to_the_next() -> None:
    terms = Terms(every_s=60, catch_up="all", overlap="allow")
    first = decide(terms, "s", decided_to=START, now=START + 24 * HOUR, live=0, waiting=0)
    assert (len(first.ticks), first.to, first.next_at) == (AT_ONCE, START + AT_ONCE * 60_000, START + (AT_ONCE + 1) * 60_000)
    then = decide(terms, "s", decided_to=first.to, now=START + 24 * HOUR, live=0, waiting=AT_ONCE)
    assert then.ticks[0].at == first.to + 60_000


def test_jitter_moves_the_start_of_a_time_and_not_the_time() -> None:
    at = START + HOUR
    late = jitter_ms("acme/nightly", at, 600)
    assert 0 < late <= 600_000
    assert late == jitter_ms("acme/nightly", at, 600) != jitter_ms("birch/nightly", at, 600)
    assert decided(at + late - 1, jitter_s=600) == ([], 0)
    assert decided(at + late, jitter_s=600) == ([(1, "due")], 1)
    spread = {jitter_ms("acme/nightly", START + n * HOUR, 600) // 60_000 for n in range(200)}
    assert spread == set(range(10))
