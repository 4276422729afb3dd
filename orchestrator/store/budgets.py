"""Reading the money of a tenant's day and month from the record alone: what is charged and set aside, levels, runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select, text

from cost.audit import book_of
from cost.levels import Level, level_rows, rate_ppm, read_level
from cost.money import CATEGORIES
from cost.period import first_of_month, name_of
from tenancy.policy import Policy

from . import tables as t
from .ledger import sums_of_days
from .position import Position
from .read import open_record
from .spend import Costly, costliest
from .writer import read_cursor

RUNNING = ("running", "cancelling")
TOP_MAX = 100


@dataclass(frozen=True)
class Book:
    """A day or month of a tenant, in micros: its limit, what is charged (waste included), and what is set aside for executions."""

    period: str
    limit: int
    settled: int
    reserved: int
    level: Level

    @property
    def rate_ppm(self) -> int:
        """Millionths of the limit that are settled or reserved."""
        return rate_ppm(self.settled + self.reserved, self.limit)


@dataclass(frozen=True)
class Budget:
    """The money of a tenant as the log tells it up to `position`. month: None without a limit of the month."""

    tenant: str
    currency: str
    position: Position
    day: Book
    month: Book | None
    running_runs: int
    max_concurrent_runs: int
    by_category: Mapping[str, int]
    top: tuple[Costly, ...]


def read_budget(engine: Engine, tenant: str, day: int) -> Budget | None:
    """Return what a tenant has used of a day (days since 1970-01-01 UTC) and of its month; None where there is no such tenant.

    The 100 costliest are among the runs submitted in the day. Raises Unavailable.
    """
    with open_record(engine) as connection:
        position = read_cursor(connection)
        currency = connection.execute(select(t.tenant.c.currency).where(t.tenant.c.id == tenant)).scalar()
        newest = select(t.policy.c.fields).where(t.policy.c.tenant == tenant).order_by(t.policy.c.version.desc()).limit(1)
        fields = connection.execute(newest).scalar()
        if currency is None or fields is None:
            return None
        policy = Policy.model_validate_json(fields)
        first = day if policy.limit_per_month_micros is None else first_of_month(day)
        rows = sums_of_days(connection, tenant, range(first, day + 1))
        of_levels = select(t.event.c.data).where(text(t.OF_LEVELS), t.event.c.tenant == tenant)
        told = connection.execute(of_levels.order_by(t.event.c.epoch.desc(), t.event.c.seq.desc()).limit(LEVELS_READ)).scalars().all()
        running = select(func.count()).select_from(t.run).where(t.run.c.status.in_(RUNNING), t.run.c.tenant.concat("") == tenant)
        runs = int(connection.execute(running).scalar() or 0)
    levels = level_rows(json.loads(data) for data in reversed(told)).get(tenant, {})
    of_day = book_of(row for row in rows if row["day"] == day)
    today = _book(name_of(day), policy.limit_per_day_micros, of_day, levels.get("day"))
    month = None
    if policy.limit_per_month_micros is not None:
        month = _book(name_of(day)[:7], policy.limit_per_month_micros, book_of(rows), levels.get("month"))
    by_category = {category: of_day[f"c:{category}"] for category in CATEGORIES if of_day[f"c:{category}"]}
    top = tuple(costliest(engine, tenant, day * 86_400_000, TOP_MAX))
    return Budget(tenant, currency, position, today, month, runs, policy.max_concurrent_runs, by_category, top)


LEVELS_READ = 1_000
"""Newest events of a tenant's levels that are looked at: more than a day has."""


def _book(period: str, limit: int, sums: Mapping[str, int], level: Any) -> Book:
    return Book(period, limit, sums.get("settled", 0), sums.get("reserved", 0), read_level(level, period))
