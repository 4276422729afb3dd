"""Each scheduled time is decided once, whatever the passes, the clock and the policy."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.schedules.due import DUE, GRACE_MS, MISSED, SKIPPED, decide, jitter_ms
from orchestrator.schedules.terms import Terms
from orchestrator.schedules.timetable import Timetable

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
CRONS = ("30 2 * * *", "*/20 * * * *", "0 * * * *", "15,45 1-3 * * *", "0 3 * * 1-5", "0 0 1 * *", "* 2 * * *")
STARTS = ("2026-03-07", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2026-10-31", "2026-12-31")

tables = st.one_of(
    st.builds(Timetable, cron=st.sampled_from(CRONS), timezone=st.sampled_from(ZONES)),
    st.builds(Timetable, every_s=st.sampled_from((60, 600, 3600, 5000)), timezone=st.sampled_from(ZONES)),
)
starts = st.builds(
    lambda day, hour: int((datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("UTC")) + timedelta(minutes=20 * hour)).timestamp()) * 1000,
    st.sampled_from(STARTS),
    st.integers(0, 150),
)


@given(tables, starts, st.lists(st.integers(0, 4 * 3_600_000), max_size=8))
def test_times_are_the_same_in_one_piece_and_in_any_pieces(table: Timetable, start: int, steps: list[int]) -> None:
    end = start + sum(steps)
    whole, pieces, at = list(table.times(start, end)), [], start
    for step in steps:
        pieces += table.times(at, at + step)
        at += step
    assert pieces == whole == sorted(set(whole))
    assert table.last(start, end) == (whole[-1] if whole else None)


@given(st.sampled_from(("Europe/Berlin", "America/New_York")), st.integers(0, 23), st.integers(0, 59), st.integers(0, 700))
@example("Europe/Berlin", 2, 30, 86)
@example("America/New_York", 1, 30, 304)
def test_a_daily_schedule_runs_once_on_every_day_also_when_the_clock_changes(zone: str, hour: int, minute: int, first: int) -> None:
    table = Timetable(f"{minute} {hour} * * *", timezone=zone)
    midnight = datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)) + timedelta(days=first)
    until = midnight + timedelta(days=40)
    days = [table.local(at).date() for at in table.times(int(midnight.timestamp()) * 1000 - 1, int(until.timestamp()) * 1000 - 1)]
    assert days == [(midnight + timedelta(days=n)).date() for n in range(40)]


@st.composite
def policies(draw: st.DrawFn) -> Terms:
    overlap = draw(st.sampled_from(("skip", "queue", "allow")))
    catch_up = draw(st.sampled_from(("none", "one") if overlap == "skip" else ("none", "one", "all")))
    table = draw(tables)
    jitter_s = draw(st.sampled_from((0, 0, 45)))
    return Terms(table.cron, table.every_s, table.timezone, catch_up, overlap, jitter_s)


@given(policies(), starts, st.lists(st.tuples(st.integers(-120_000, 5 * 3_600_000), st.integers(0, 2)), min_size=1, max_size=12))
def test_each_time_is_decided_once_by_passes_at_any_times_with_clocks_that_differ(
    terms: Terms, start: int, passes: list[tuple[int, int]]
) -> None:
    to, now, ticks = start, start, {}
    for step, live in passes:
        now += step
        decision = decide(terms, "t/s", decided_to=to, now=now, live=live, waiting=0)
        assert decision == decide(terms, "t/s", decided_to=to, now=now, live=live, waiting=0)
        assert decision.to >= to
        assert decision.next_at is None or decision.next_at > to
        for tick in decision.ticks:
            assert to < tick.at <= decision.to, "nothing is decided twice, and nothing that is not noted as decided"
            assert tick.at not in ticks
            assert tick.at <= now
            assert tick.state == MISSED or tick.at + jitter_ms("t/s", tick.at, terms.jitter_s) <= now
            ticks[tick.at] = tick
        if terms.overlap == "skip":
            assert sum(tick.state == DUE for tick in decision.ticks) <= (0 if live else 1)
        if terms.catch_up != "all":
            late = [tick for tick in decision.ticks if tick.state in (DUE, SKIPPED) and now - tick.at >= GRACE_MS + terms.jitter_s * 1000]
            assert len(late) <= (1 if terms.catch_up == "one" else 0)
        to = decision.to
    every = list(terms.timetable.times(start, to))
    if terms.catch_up == "all":
        assert sorted(ticks) == every, "with catch_up all no time is without its own decision"
    else:
        assert set(ticks) <= set(every)
