"""When times are: by cron over changes of the clock, and by interval."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import pytest

from orchestrator.schedules.terms import Terms
from orchestrator.schedules.timetable import Timetable

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def times(table: Timetable, after: str, until: str) -> list[str]:
    return [table.local(at).strftime("%d %H:%M%z") for at in table.times(ms(after), ms(until))]


@pytest.mark.parametrize(
    ("zone", "since", "until", "end_of_the_hour"),
    [
        (BERLIN, "2026-03-28T12:00+01:00", "2026-03-30T12:00+02:00", "29 03:00+0200"),
        (NEW_YORK, "2026-03-07T12:00-05:00", "2026-03-09T12:00-04:00", "08 03:00-0400"),
    ],
)
def test_a_fixed_time_in_a_skipped_hour_comes_at_its_end_once(zone: str, since: str, until: str, end_of_the_hour: str) -> None:
    after = {BERLIN: "30 02:30+0200", NEW_YORK: "09 02:30-0400"}[zone]
    assert times(Timetable("30 2 * * *", timezone=zone), since, until) == [end_of_the_hour, after]
    # Several of that hour, and one that stands at its end, are one time.
    assert times(Timetable("0,30 2,3 * * *", timezone=zone), since, until)[:2] == [
        end_of_the_hour,
        end_of_the_hour.replace(":00", ":30", 1),
    ]


@pytest.mark.parametrize(
    ("zone", "since", "until", "day", "summer", "winter"),
    [
        (BERLIN, "2026-10-25T00:00+02:00", "2026-10-25T04:00+01:00", 25, "+0200", "+0100"),
        (NEW_YORK, "2026-11-01T00:00-04:00", "2026-11-01T04:00-05:00", 1, "-0400", "-0500"),
    ],
)
def test_a_fixed_time_in_a_repeated_hour_comes_once_and_a_star_follows_the_clock(
    zone: str, since: str, until: str, day: int, summer: str, winter: str
) -> None:
    hour = {BERLIN: 2, NEW_YORK: 1}[zone]
    assert times(Timetable(f"30 {hour} * * *", timezone=zone), since, until) == [f"{day:02} {hour:02}:30{summer}"]
    both = times(Timetable("30 * * * *", timezone=zone), since, until)
    assert [each for each in both if f" {hour:02}:30" in each] == [f"{day:02} {hour:02}:30{summer}", f"{day:02} {hour:02}:30{winter}"]
    every = Timetable(every_s=1800, timezone=zone)
    gaps = list(every.times(ms(since), ms(until)))
    assert {later - earlier for earlier, later in pairwise(gaps)} == {1_800_000}


def test_asked_in_the_second_of_two_equal_hours_the_first_is_over() -> None:
    table = Timetable("30 2 * * *", timezone=BERLIN)
    assert times(table, "2026-10-25T02:10+01:00", "2026-10-27T00:00+01:00") == ["26 02:30+0100"]


def test_times_are_after_the_one_moment_and_up_to_the_other() -> None:
    table = Timetable(every_s=60)
    assert list(table.times(60_000, 180_000)) == [120_000, 180_000]
    assert (table.next(59_999), table.next(60_000), table.last(0, 59_999), table.last(0, 60_000)) == (60_000, 120_000, None, 60_000)
    daily = Timetable("@daily", timezone=BERLIN)
    assert daily.last(0, ms("2026-11-22T10:00+01:00")) == ms("2026-11-22T00:00+01:00")
    leap = Timetable("0 0 29 2 *")
    assert (leap.last(0, ms("2027-12-31T00:00Z")), leap.next(ms("2026-01-01T00:00Z"))) == (ms("2024-02-29T00:00Z"), ms("2028-02-29T00:00Z"))


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({}, "one of the two"),
        ({"cron": "* * * * *", "every_s": 60}, "one of the two"),
        ({"cron": "* * * *"}, "'* * * *' is no cron expression; give minute"),
        ({"cron": "61 * * * *"}, "bad minute"),
        ({"cron": "0 0 30 2 *"}, "bad day-of-month"),
        ({"cron": "*/0 * * * *"}, "bad minute"),
        ({"cron": "0 0 * * * *"}, "is no cron expression"),
        ({"cron": "\x00" * 9_999}, "is no cron expression"),
        ({"cron": "@never"}, "is no cron expression"),
        ({"every_s": 4}, "the interval is 4; give 5 to"),
        ({"every_s": 60.0}, "the interval is 60.0"),
        ({"every_s": True}, "the interval is True"),
        ({"every_s": 60, "timezone": "Mars/Olympus"}, "there is no timezone 'Mars/Olympus'"),
        ({"every_s": 60, "timezone": "../../etc/passwd"}, "there is no timezone"),
        ({"every_s": 60, "timezone": "Europe"}, "there is no timezone"),
        ({"every_s": 60, "catch_up": "some"}, "catch_up is 'some'; use none, one or all"),
        ({"every_s": 60, "overlap": "ski"}, "overlap is 'ski'; use skip, queue or allow"),
        ({"every_s": 60, "catch_up": "all"}, "use overlap queue or allow"),
        ({"every_s": 60, "jitter_s": 60}, "the jitter of 60 s is not less than"),
        ({"every_s": 60, "jitter_s": -1}, "the jitter is -1"),
        ({"every_s": 60, "budget": -1}, "must not be negative"),
        ({"every_s": 60, "budget": 0.5}, "whole number of micros"),
        ({"every_s": 60, "priority": 2}, "the priority is 2"),
        ({"every_s": 60, "cronn": "x"}, "a schedule has no 'cronn'"),
    ],
)
def test_what_does_not_fit_is_named_in_one_short_sentence(said: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError) as refused:
        Terms.of(said)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 1_000


def test_another_way_to_say_when_takes_the_place_of_the_first() -> None:
    terms = Terms(cron="@daily", timezone=BERLIN, jitter_s=5)
    assert terms.evolve(every_s=60) == Terms(every_s=60, timezone=BERLIN, jitter_s=5)
    assert terms.evolve(every_s=60).evolve(cron="@hourly").timetable == Timetable("@hourly", timezone=BERLIN)
