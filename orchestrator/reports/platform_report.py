"""The report about the platform: runs and their outcomes, who was charged what, fairness, waiting, the dearest runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from cost.period import day_of, first_of_month, name_of
from orchestrator.reports.figures import forecast, jain
from orchestrator.reports.period import Period
from orchestrator.reports.tenant_report import LATE_DAYS, SCHEMA_VERSION, late_entries, outcomes_of
from orchestrator.store import report_rows as rows
from orchestrator.store.spend import REFUSALS

SCOPE = "platform"

TOP = 20


def platform_report(engine: Engine, period: Period, now_ms: int) -> dict[str, Any]:
    """Return the report about the platform's period as it is known now. Amounts are by currency: they do not add up over several.

    Raises Unavailable.
    """
    with rows.standing(engine) as (connection, position):
        tenants = {row.id: row for row in rows.all_tenants(connection)}
        currencies = {name: row.currency for name, row in tenants.items()}
        first = max(0, min(first_of_month(period.first), period.first - LATE_DAYS))
        known = rows.charged_by_day(connection, None, range(first, min(period.last, day_of(now_ms)) + 1))
        by_currency = {day: _by_currency(of_day, currencies) for day, of_day in known.items()}
        stated = {name_of(day): sums for day, sums in by_currency.items() if day >= period.first - LATE_DAYS}
        ended = rows.runs_ended(connection, None, period.start_ms, period.end_ms)
        used: Counter[str] = Counter()
        breakdown: dict[str, Counter[str]] = defaultdict(Counter)
        for day in period.days:
            for tenant, cats in known.get(day, {}).items():
                used[tenant] += sum(cats.values())
                breakdown[currencies.get(tenant, "")].update(cats)
        worked = _worker_ms(connection, period)
        shares = _shares(connection, worked, period)
        month = Period.of_month(period.first)
        last = min(period.last, day_of(now_ms))
        dearest = sorted((row for row in ended if row.cost_micros), key=lambda row: (-row.cost_micros, row.run_id))[:TOP]
        return {
            "schema_version": SCHEMA_VERSION,
            "scope": SCOPE,
            "period": period.name,
            "position": str(position),
            "made_at": now_ms / 1000,
            "complete": now_ms >= period.end_ms,
            "used": {currency: sum(cats.values()) for currency, cats in sorted(breakdown.items())},
            "breakdown": {currency: dict(sorted(cats.items())) for currency, cats in sorted(breakdown.items())},
            "forecast": {
                currency: forecast(month.days, last, {day: sums.get(currency, 0) for day, sums in by_currency.items()}, None)
                for currency in sorted(set(currencies.values()) & {name for sums in by_currency.values() for name in sums})
            },
            "runs": {
                "submitted": rows.runs_submitted(connection, None, period.start_ms, period.end_ms),
                "refusals": sum(rows.refusals_in(connection, name, period.start_ms, period.end_ms, REFUSALS) for name in tenants),
                **outcomes_of(ended),
            },
            "fairness": jain(each["worker_s"] / each["weight"] for each in shares.values()),
            "tenants": [
                {
                    "tenant_id": name,
                    "currency": currencies.get(name, ""),
                    "used": used[name],
                    "runs_ended": sum(row.tenant == name and row.status == "ended" for row in ended),
                    **shares.get(name, {"worker_s": 0.0, "weight": None, "share": None, "due": None}),
                }
                for name in sorted({*used, *worked, *(row.tenant for row in ended)}, key=lambda name: (-used[name], name))
            ],
            "top": [
                {
                    "run_id": row.run_id,
                    "generation": row.generation,
                    "tenant_id": row.tenant,
                    "graph": row.graph_name,
                    "currency": currencies.get(row.tenant, ""),
                    "cost": row.cost_micros,
                }
                for row in dearest
            ],
            "by_day": [{"day": name_of(day), "by_currency": by_currency.get(day, {})} for day in period.days if day <= last],
            "late": late_entries(connection, SCOPE, stated, period),
            "worker_ms": worked,
            "stated": stated,
        }


def _by_currency(of_day: Mapping[str, Mapping[str, int]], currencies: Mapping[str, str]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for tenant, cats in of_day.items():
        sums[currencies.get(tenant, "")] += sum(cats.values())
    return {currency: micros for currency, micros in sorted(sums.items()) if micros}


def _worker_ms(connection: Connection, period: Period) -> dict[str, int]:
    """How long workers worked for each tenant. Of a month from the reports about its days: its nodes may be many millions."""
    if period.kind == "day":
        return dict(sorted(rows.worker_ms(connection, period.start_ms, period.end_ms).items()))
    sums: Counter[str] = Counter()
    for body in rows.bodies(connection, SCOPE, "day", name_of(period.first), name_of(period.last)):
        sums.update(body["worker_ms"])
    return dict(sorted(sums.items()))


def _shares(connection: Connection, worked: Mapping[str, int], period: Period) -> dict[str, dict[str, Any]]:
    """What part of all worker time each tenant got, and would have got by its weight among those that got some."""
    weights = {name: rows.policy_at(connection, name, period.end_ms).weight for name in worked}
    everything, weight = sum(worked.values()), sum(weights.values())
    return {
        name: {
            "worker_s": took / 1000,
            "weight": weights[name],
            "share": round(took / everything, 4) if everything else None,
            "due": round(weights[name] / weight, 4),
        }
        for name, took in worked.items()
    }
