"""Levels as the record and people read them."""

from __future__ import annotations

from typing import Any

from cost.levels import Level, level_rows, rate_ppm, read_level, stopped_until

NOON_MS = 1_798_718_400_000
"""2026-12-31, 12:00 UTC"""
MIDNIGHT_MS = NOON_MS + 43_200_000


def event(kind: str, level: str, entry: int, period: str = "2026-12-31", tenant: str = "acme") -> dict[str, Any]:
    return {"t": f"level.{kind}", "tenant": tenant, "period": period, "level": level, "entry": entry}


def test_a_level_is_that_of_its_own_period_and_healthy_in_any_other() -> None:
    assert read_level("2026-12-31|110|2,1,0", "2026-12-31") == Level("CRITICAL", 1)
    assert read_level("2026-12-31|000|2,1,0", "2026-12-31") == Level("HEALTHY", 0)
    assert read_level("2026-12-31|110|2,1,0", "2027-01-01") == Level("HEALTHY", 0)
    assert read_level(None, "2026-12-31") == Level()


def test_rates_are_whole_millionths_rounded_down() -> None:
    assert rate_ppm(7_999, 10_000) == 799_900
    assert rate_ppm(2, 3) == 666_666
    assert rate_ppm(0, 0) == 1_000_000
    assert rate_ppm(2**53 - 1, 1) == 1_000_000_000


def test_the_last_recorded_event_of_each_level_says_where_a_tenant_stands() -> None:
    events = [
        event("entered", "WARNING", 1, "2026-12-30"),
        event("entered", "WARNING", 1),
        event("entered", "CRITICAL", 1),
        event("left", "CRITICAL", 1),
        event("entered", "WARNING", 1, "2026-12"),
        event("entered", "CRITICAL", 2),
        event("left", "WARNING", 4, tenant="beta"),
    ]
    assert level_rows(events) == {
        "acme": {"day": "2026-12-31|110|1,2,0", "month": "2026-12|100|1,0,0"},
        "beta": {"day": "2026-12-31|000|4,0,0"},
    }


def test_a_tenant_is_stopped_until_the_end_of_the_last_period_whose_level_says_so() -> None:
    policy = {"on_warning": "notify", "on_critical": "suspend", "on_exceeded": "notify", "limit_month": "5"}
    assert stopped_until(policy, {"day": "2026-12-31|100|1,0,0"}, NOON_MS) == (None, None)
    assert stopped_until(policy, {"day": "2026-12-31|110|1,1,0"}, NOON_MS) == (MIDNIGHT_MS, None)
    assert stopped_until(policy, {"day": "2026-12-31|111|1,1,1"}, NOON_MS) == (MIDNIGHT_MS, None)
    assert stopped_until(policy, {"day": "2026-12-30|111|1,1,1"}, NOON_MS) == (None, None), "a closed period stops nobody"
    earlier = NOON_MS - 20 * 86_400_000
    assert stopped_until(policy, {"month": "2026-12|110|1,1,0"}, earlier) == (MIDNIGHT_MS, None)
    assert stopped_until({**policy, "limit_month": ""}, {"month": "2026-12|110|1,1,0"}, earlier) == (None, None)
    at_once = {**policy, "on_exceeded": "suspend_now"}
    assert stopped_until(at_once, {"day": "2026-12-31|111|1,1,1"}, NOON_MS) == (MIDNIGHT_MS, MIDNIGHT_MS)
    assert stopped_until(at_once, {"day": "2026-12-31|110|1,1,1"}, NOON_MS) == (MIDNIGHT_MS, None)
    assert stopped_until({**policy, "enforcement": "observe"}, {"day": "2026-12-31|110|1,1,0"}, NOON_MS) == (None, None)
