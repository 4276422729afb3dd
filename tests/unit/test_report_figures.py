"""The figures of reports, the periods that are due, and pages in which no name is more than a name."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost.period import MS_PER_DAY, day_of
from orchestrator.reports.charts import bars, columns
from orchestrator.reports.figures import NO_VALUE, VALUES_MAX, by_label, forecast, jain, late, percentile
from orchestrator.reports.page import money, page
from orchestrator.reports.period import DELAY_MS, Period, due
from tenancy.errors import Refused

pytestmark = pytest.mark.unit

HOSTILE = "<script>alert(1)</script>{{ 1 + 1 }}{% raw x %}\"'><img src=x onerror=alert(2)>"
DAY = day_of(1_795_305_600_000)  # 2026-11-22


def test_periods_are_parsed_and_nothing_else_is() -> None:
    assert Period.parse("2026-11-22") == Period(DAY, DAY, "2026-11-22")
    month = Period.parse("2026-02")
    assert (month.kind, len(month.days), month.days[0]) == ("month", 28, Period.parse("2026-02-01").first)
    assert Period.parse("2024-02").end_ms == Period.parse("2024-03-01").start_ms
    for text in ("", "2026", "2026-13", "2026-11-31", "../../etc/x", "2026-11-2x", "0001-01", "1969-12-31", "2026-11-22 "):
        with pytest.raises(Refused, match="no day such as"):
            Period.parse(text)


def test_a_day_is_due_five_minutes_after_its_end_and_whatever_was_missed_with_it() -> None:
    midnight = (DAY + 1) * MS_PER_DAY
    assert due(midnight + DELAY_MS - 1, DAY, "day", frozenset(), 31) == []
    assert due(midnight + DELAY_MS, DAY, "day", frozenset(), 31) == [Period.of_day(DAY)]
    assert due(midnight + DELAY_MS, DAY, "day", frozenset({"2026-11-22"}), 31) == []
    outage = due(midnight + 9 * 3_600_000, DAY - 3, "day", frozenset({"2026-11-20"}), 31)
    assert [period.name for period in outage] == ["2026-11-19", "2026-11-21", "2026-11-22"]
    assert len(due(midnight + DELAY_MS, 0, "day", frozenset(), 31)) == 31
    december = Period.parse("2026-12-01").start_ms
    assert [each.name for each in due(december + DELAY_MS, 0, "month", frozenset(), 2)] == ["2026-10", "2026-11"]
    assert due(december + DELAY_MS - 1, DAY, "month", frozenset(), 2) == []


def test_percentiles_are_values_that_were_there() -> None:
    assert percentile([], 50) is None
    assert percentile([3.0], 95) == 3.0
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 95), percentile(values, 100), percentile(values, 0)) == (50, 95, 100, 1)


def test_fairness_is_one_where_all_got_the_same() -> None:
    assert jain([2.0, 2.0, 2.0]) == 1
    assert jain([4.0, 0.000001]) == 0.5
    assert jain([]) is None


def test_a_forecast_adds_the_mean_of_the_last_days_for_each_day_left() -> None:
    month = Period.parse("2026-11").days
    found = forecast(month, month[9], {month[at]: 70 for at in range(3, 10)}, 5_000)
    assert (found["settled"], found["days_left"], found["projected"], found["limit"]) == (490, 20, 490 + 20 * 70, 5_000)
    assert forecast(month, month[-1], {month[0]: 5}, None)["projected"] == 5


def test_what_came_late_is_the_difference_to_what_was_told() -> None:
    before = {"2026-11-20": {"llm": 5, "compute": 1}, "2026-11-21": {"llm": 7}, "2026-10-01": {"llm": 9}}
    now = {"2026-11-20": {"llm": 5, "compute": 1}, "2026-11-21": {"llm": 4, "other": 2}, "2026-11-19": {"llm": 3}}
    assert late(before, now, "2026-11-01") == [
        {"period": "2026-11-19", "micros": 3, "by": {"llm": 3}},
        {"period": "2026-11-21", "micros": -1, "by": {"llm": -3, "other": 2}},
    ]


labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", NO_VALUE, "(others)", *map(str, range(60))]), max_size=3)


@given(st.lists(st.tuples(labels, st.integers(-(10**6), 10**6)), max_size=80))
def test_the_values_of_each_label_add_up_to_everything(charges: list[tuple[dict[str, str], int]]) -> None:
    found = by_label(charges)
    assert set(found) == {name for each, _ in charges for name in each}
    for values in found.values():
        assert sum(values.values()) == sum(micros for _, micros in charges)
        assert len(values) <= VALUES_MAX + 2


def test_amounts_are_in_units_and_may_be_less_than_nothing() -> None:
    assert money(1_234_567_890, "EUR") == "1,234.56789 EUR"
    assert money(-500_000) == "−0.50"  # noqa: RUF001
    assert (money(0), money(None)) == ("0.00", "none")


def tenants_report(name: str) -> dict[str, Any]:
    runs = {"submitted": 3, "ended": 2, "refused": 1, "refusals": 1, "queue_wait_s": {"p50": 0.5, "p95": 2.0}}
    runs |= {"duration_s": {"p50": None, "p95": None}, "outcomes": {"succeeded": 1, "terminated_by_cost": 1}}
    return {
        "schema_version": 1,
        "scope": "tenant",
        "tenant_id": name,
        "name": name,
        "currency": name,
        "period": "2026-11",
        "position": "1-7",
        "made_at": 1.8e9,
        "complete": False,
        "waste": 5,
        "stated": {},
        "budget": {"limit": 1_000, "used": 900, "remaining": 100, "rate": 0.9, "level": "CRITICAL"},
        "breakdown": {name: 900},
        "forecast": {"period": "2026-11", "settled": 900, "projected": 990, "limit": None, "days_left": 1, "pace_days": 7},
        "top": [{"run_id": name, "generation": 1, "graph": name, "state": name, "cost": 900}],
        "labels": {name: {name: 900}},
        "by_day": [{"day": "2026-11-01", "by_category": {"llm": 900}}, {"day": "2026-11-02", "by_category": {name: 5}}],
        "late": [{"period": name, "micros": 4, "by": {name: 4}}],
        "runs": runs,
        "running": [{"run_id": name, "generation": 1, "graph": name, "started_at": 1.8e9, "cost": 3}],
        "concurrency": {"max_concurrent_runs": 10, "max_running_nodes": None},
    }


def platforms_report(name: str) -> dict[str, Any]:
    made = tenants_report(name)
    shares = {"worker_s": 3.0, "weight": 1, "share": 1.0, "due": 1.0}
    return {
        **{key: made[key] for key in ("schema_version", "period", "position", "made_at", "complete", "late", "runs", "stated")},
        "scope": "platform",
        "used": {name: 900},
        "breakdown": {name: {name: 900}},
        "forecast": {name: made["forecast"]},
        "fairness": None,
        "tenants": [{"tenant_id": name, "currency": name, "used": 900, "runs_ended": 2, **shares}],
        "top": [{"run_id": name, "generation": 1, "tenant_id": name, "graph": name, "currency": name, "cost": 900}],
        "by_day": [{"day": "2026-11-01", "by_currency": {name: 900}}, {"day": "2026-11-02", "by_currency": {}}],
    }


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize("made", [tenants_report(HOSTILE), platforms_report(HOSTILE)], ids=["tenant", "platform"])
def test_a_name_on_a_page_is_text_and_nothing_is_fetched_from_elsewhere(made: dict[str, Any]) -> None:
    text = page(made)
    tags = Tags()
    tags.feed(text)
    assert not tags.seen & {"script", "img", "iframe", "link", "object", "base"}
    assert not {name for name in tags.attributes if name.startswith("on")} | tags.attributes & {"src", "href", "srcset"}
    assert "{{ 1 + 1 }}" in text, "a template in a name is not read as one"
    assert not re.search(r"url\(|@import|https?:", text)


def test_charts_draw_nothing_for_nothing() -> None:
    assert "<rect" not in columns("none", [("a", {})], ["llm"], ["a: 0"], "")
    assert bars("none", []).startswith("<svg")
