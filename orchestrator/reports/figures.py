"""The figures of a report that are computed from others: percentiles, fairness, a forecast, what came late. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cost.period import name_of

ByDay = Mapping[str, Mapping[str, int]]
"""Micros by day (`2026-11-22`) and by something: a category, or a currency."""

PACE_DAYS = 7
"""A forecast goes by the mean of so many days."""

LABELS_MAX, VALUES_MAX = 20, 50
"""Labels of a report, and values of each: the dearest."""

NO_VALUE = "(none)"
"""What is charged to runs without the label, to ordinary tasks, and by corrections."""


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the least of the values that at least `percent` of them do not exceed (nearest rank); None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return median and 95th percentile."""
    return {f"p{percent}": None if (found := percentile(values, percent)) is None else round(found, 3) for percent in (50, 95)}


def jain(values: Iterable[float]) -> float | None:
    """Return Jain's index of fairness, (sum)^2 / (n * sum of squares): 1 where all are equal, 1/n where one has all; None without values.

    R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness and Discrimination, DEC-TR-301, 1984.
    """
    known = [value for value in values if value > 0]
    return round(sum(known) ** 2 / (len(known) * sum(value * value for value in known)), 4) if known else None


def forecast(month_days: range, last: int, by_day: Mapping[int, int], limit: int | None) -> dict[str, Any]:
    """Return what a month is likely to cost at its end, in micros: what is settled, and for each day left the mean of the last days.

    last: the day up to which is known what was spent. by_day: that, in micros; days without anything may be left out. limit: of the month.
    """
    known = [day for day in month_days if day <= last]
    pace = [by_day.get(day, 0) for day in known[-PACE_DAYS:]]
    settled = sum(by_day.get(day, 0) for day in known)
    left = len(month_days) - len(known)
    projected = settled + (sum(pace) * left // len(pace) if pace else 0)
    return {
        "period": name_of(month_days[0])[:7],
        "settled": settled,
        "projected": projected,
        "limit": limit,
        "days_left": left,
        "pace_days": len(pace),
    }


def late(before: ByDay, now: ByDay, since: str) -> list[dict[str, Any]]:
    """Return what was charged to days by now and not when the report before this one was made; less than 0 where it was given back.

    before: what that report knew of each day; now: what is known; both of the same days or more. since: the first day that both have.
    """
    found = []
    for day in sorted({*before, *now}):
        then, known = before.get(day, {}), now.get(day, {})
        differences = {name: known.get(name, 0) - then.get(name, 0) for name in sorted({*then, *known})}
        came = {name: micros for name, micros in differences.items() if micros}
        if came and day >= since:
            found.append({"period": day, "micros": sum(came.values()), "by": came})
    return found


def by_label(charges: Iterable[tuple[Mapping[str, str], int]]) -> dict[str, dict[str, int]]:
    """Return what was charged by label and value, in micros, the dearest values first; the values of each label add up to everything.

    charges: the labels of a run, and what it was charged. What has not the label, and what is beyond the most that are shown, is under
    `NO_VALUE` and `(others)`.
    """
    known = list(charges)
    total = sum(micros for _, micros in known)
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for labels, micros in known:
        for name, value in labels.items():
            sums[name][value] += micros
    found = {}
    for name, counter in sorted(sums.items(), key=lambda each: (-sum(each[1].values()), each[0]))[:LABELS_MAX]:
        dearest = sorted(counter.items(), key=lambda each: (-each[1], each[0]))
        rest = sum(micros for _, micros in dearest[VALUES_MAX:])
        values = dict(dearest[:VALUES_MAX])
        if rest:
            values["(others)"] = values.get("(others)", 0) + rest
        if without := total - sum(counter.values()):
            values[NO_VALUE] = values.get(NO_VALUE, 0) + without
        found[name] = values
    return found
