"""The cost report of a tenant: what a day or month cost it, by category, run and label, and what came late for the days before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from cost.levels import rate_ppm
from cost.money import CATEGORIES
from cost.period import day_of, first_of_month, name_of
from orchestrator.reports.figures import by_label, forecast, late, spread
from orchestrator.reports.period import Period
from orchestrator.store import report_rows as rows
from orchestrator.store.position import Position
from orchestrator.store.run_search import OUTCOMES, state_of
from orchestrator.store.spend import REFUSALS
from tenancy.errors import Unknown

SCHEMA_VERSION = 1

TOP, RUNNING_MAX = 10, 100

LATE_DAYS = 62
"""How many days before a period are looked at for what came late: as long as books are open for corrections."""


def scope_of(tenant: str) -> str:
    """Return what the reports about a tenant are under."""
    return f"tenant:{tenant}"


def tenant_report(engine: Engine, tenant: str, period: Period, now_ms: int) -> dict[str, Any]:
    """Return the report about a tenant's period as it is known now; it states the position of the log. Raises Unknown, Unavailable."""
    with rows.standing(engine) as (connection, position):
        of_tenant = next((each for each in rows.all_tenants(connection) if each.id == tenant), None)
        if of_tenant is None:
            raise Unknown(f"there is no tenant {tenant!r}")
        return read_report(connection, position, of_tenant, period, now_ms)


def read_report(connection: Connection, position: Position, tenant: Any, period: Period, now_ms: int) -> dict[str, Any]:
    """Return the report about a tenant (its row), from one transaction that sees the record at `position`."""
    first = min(first_of_month(period.first), period.first - LATE_DAYS)
    days = range(max(0, first), min(period.last, day_of(now_ms)) + 1)
    known = {day: of_day.get(tenant.id, {}) for day, of_day in rows.charged_by_day(connection, tenant.id, days).items()}
    charges = rows.charges_in(connection, tenant.id, period.days)
    stated = {name_of(day): cats for day, cats in known.items() if day >= period.first - LATE_DAYS}
    ended = rows.runs_ended(connection, tenant.id, period.start_ms, period.end_ms)
    return {
        "schema_version": SCHEMA_VERSION,
        "scope": "tenant",
        "tenant_id": tenant.id,
        "name": tenant.name,
        "currency": tenant.currency,
        "period": period.name,
        "position": str(position),
        "made_at": now_ms / 1000,
        "complete": now_ms >= period.end_ms,
        **_money(connection, tenant.id, period, charges, known, now_ms),
        "top": [_top(each) for each in charges[:TOP]],
        "labels": by_label([(each.labels, each.micros) for each in charges]),
        "by_day": [{"day": name_of(day), "by_category": known.get(day, {})} for day in period.days if day in days],
        "late": late_entries(connection, scope_of(tenant.id), stated, period),
        "runs": {
            "submitted": rows.runs_submitted(connection, tenant.id, period.start_ms, period.end_ms),
            "refusals": rows.refusals_in(connection, tenant.id, period.start_ms, period.end_ms, REFUSALS),
            **outcomes_of(ended),
        },
        "running": [
            {
                "run_id": row.run_id,
                "generation": row.generation,
                "graph": row.graph_name,
                "started_at": None if row.started_at is None else row.started_at / 1000,
                "cost": row.cost_micros,
            }
            for row in rows.runs_live(connection, tenant.id, RUNNING_MAX)
        ],
        "stated": stated,
    }


def _money(
    connection: Connection, tenant: str, period: Period, charges: Sequence[rows.Charge], known: Mapping[int, Any], now_ms: int
) -> dict[str, Any]:
    policy = rows.policy_at(connection, tenant, min(period.end_ms, now_ms))
    breakdown: Counter[str] = Counter()
    for each in charges:
        breakdown.update(each.by_category)
    used = sum(breakdown.values())
    limit = policy.limit_per_day_micros if period.kind == "day" else policy.limit_per_month_micros
    month = Period.of_month(period.first)
    spent = {day: sum(cats.values()) for day, cats in known.items()}
    return {
        "budget": {
            "limit": limit,
            "used": used,
            "remaining": None if limit is None else max(0, limit - used),
            "rate": None if limit is None else rate_ppm(max(0, used), limit) / 1_000_000,
            "level": rows.level_of(connection, tenant, period.name),
        },
        "concurrency": {"max_concurrent_runs": policy.max_concurrent_runs, "max_running_nodes": policy.max_running_nodes},
        "breakdown": {name: breakdown[name] for name in CATEGORIES if breakdown[name]},
        "waste": sum(each.waste for each in charges),
        "forecast": forecast(month.days, min(period.last, day_of(now_ms)), spent, policy.limit_per_month_micros),
    }


def late_entries(
    connection: Connection, scope: str, stated: Mapping[str, Mapping[str, int]], period: Period, platform: str = "platform"
) -> list[dict[str, Any]]:
    """Return what was charged to days before a period since the last report of its scope and kind before this one was made.

    Days of which none was made, because nothing had happened, count as reported with nothing; days before the platform's first do not.
    """
    first = rows.first_period(connection, platform, period.kind)
    if first is None or first >= period.name:
        return []
    before = rows.report_before(connection, scope, period.kind, period.name)
    since = max(Period.parse(first).first, period.first - LATE_DAYS, 0)
    earlier = {day: by for day, by in stated.items() if day < name_of(period.first)}
    return late(before["stated"] if before is not None else {}, earlier, name_of(since))


def outcomes_of(ended: Sequence[Any]) -> dict[str, Any]:
    """Return how many runs ended how, how long they waited to start, and how long they took, in seconds."""
    states = Counter(state_of(row.status, row.outcome) for row in ended)
    waits = [(row.started_at - row.submitted_at) / 1000 for row in ended if row.started_at is not None]
    took = [(row.finished_at - row.started_at) / 1000 for row in ended if row.started_at is not None]
    return {
        "ended": sum(states[name] for name in OUTCOMES),
        "outcomes": {name: states[name] for name in OUTCOMES},
        "refused": states["refused"],
        "queue_wait_s": spread(waits),
        "duration_s": spread(took),
    }


def _top(each: rows.Charge) -> dict[str, Any]:
    return {"run_id": each.run_id, "generation": each.generation, "graph": each.graph, "state": each.state, "cost": each.micros}
