"""A report as one HTML page: no script, nothing from elsewhere, charts drawn in it; by report.html, which escapes everything."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tornado.template import Loader, Template

from cost.money import CATEGORIES
from orchestrator.cli.output import seconds
from orchestrator.reports.charts import bars, columns, meter

_HERE = Path(__file__).resolve().parent
SHOWN = 20
"""Rows of a table of labels or tenants, at most; the JSON has all."""


def page(report: Mapping[str, Any]) -> str:
    """Return the page of a report, of a tenant or of the platform."""
    currency = str(report.get("currency") or "")
    told = {
        "report": report,
        "of_tenant": report["scope"] == "tenant",
        "title": _title(report),
        "money": lambda micros: money(micros, currency),
        "amount": money,
        "seconds": seconds,
        "at": lambda epoch_s: time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch_s)),
        "series": CATEGORIES if report["scope"] == "tenant" else tuple(report["used"]),
        "outcomes": [(name.replace("_", " "), count) for name, count in report["runs"]["outcomes"].items()],
        "shown": SHOWN,
        "chart": _charts(report, currency),
    }
    text: bytes = _template().generate(**told)
    return text.decode()


def money(micros: int | None, currency: str = "") -> str:
    """Return an amount in units, with its currency; "none" for None. Sums may be less than 0."""
    if micros is None:
        return "none"
    whole, rest = divmod(abs(micros), 1_000_000)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'−' if micros < 0 else ''}{whole:,}.{decimals} {currency}".rstrip()  # noqa: RUF001 (a minus sign, for people)


def _title(report: Mapping[str, Any]) -> str:
    who = f"{report['name']} ({report['tenant_id']})" if report["scope"] == "tenant" else "The platform"
    return f"{who}, {report['period']}"


def _charts(report: Mapping[str, Any], currency: str) -> dict[str, str]:
    found: dict[str, str] = {}
    runs = report["runs"]["outcomes"]
    found["outcomes"] = bars("Runs by outcome", [(name.replace("_", " "), count, str(count)) for name, count in runs.items() if count])
    if report["scope"] == "tenant":
        found["days"] = _days("Cost by day and category", report["by_day"], "by_category", CATEGORIES, currency)
        top = [(f"{each['graph'] or 'task or correction'} {each['run_id'][-8:]}", each["cost"]) for each in report["top"]]
        found["top"] = bars("Dearest runs", [(name, micros, money(micros, currency)) for name, micros in top], 1)
        rate = report["budget"]["rate"]
        if rate is not None:
            found["budget"] = meter("Share of the limit that is used", [(report["budget"]["level"].lower(), rate)], (0.8, 0.9))
        for number, (name, values) in enumerate(report["labels"].items()):
            rows = [(value, micros, money(micros, currency)) for value, micros in list(values.items())[:SHOWN]]
            found[f"label{number}"] = bars(f"Cost by {name}", rows, 2)
    else:
        found["days"] = _days("Cost by day and currency", report["by_day"], "by_currency", tuple(report["used"]), "")
        shares = [each for each in report["tenants"] if each["share"] is not None][:SHOWN]
        rows = [(each["tenant_id"], each["share"], f"{each['share']:.1%} of {each['due']:.1%}") for each in shares]
        found["shares"] = bars("Share of worker time received, of what the weight says", rows, 3)
    return found


def _days(title: str, by_day: Sequence[Mapping[str, Any]], name: str, series: Sequence[str], currency: str) -> str:
    if len(by_day) < 2:
        return ""  # one day is in the table
    days = [(each["day"][5:], each[name]) for each in by_day]
    say = [
        f"{each['day']}: " + (", ".join(f"{part} {money(micros, currency)}" for part, micros in each[name].items()) or "0")
        for each in by_day
    ]
    most = max((sum(max(0, micros) for micros in parts.values()) for _, parts in days), default=0)
    return columns(title, days, series, say, money(most))


@cache
def _template() -> Template:
    return Loader(str(_HERE), autoescape="xhtml_escape").load("report.html")
