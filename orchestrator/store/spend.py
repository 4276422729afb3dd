"""Reading what tenants spend: lately, by day and category, by run; and what was refused to them. From indexes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from . import tables as t
from .ledger import CHARGES
from .read import open_record
from .run_search import state_of
from .sums import total

REFUSALS = ("run.refused", "money.refused")


@dataclass(frozen=True)
class Costly:
    """A run by what it cost, in micros."""

    run_id: str
    generation: int
    graph: str
    state: str
    cost: int


def spent_since(engine: Engine, tenants: Sequence[str], days: Sequence[int], since_ms: int) -> dict[str, int]:
    """Return what each of `tenants` was charged since then, in micros, of the books of `days`. Raises Unavailable."""
    c = t.ledger.c
    mine = c.tenant.in_(list(tenants)) & c.day.in_(list(days)) & c.kind.in_(("settle", "waste")) & (c.at >= since_ms)
    with open_record(engine) as connection:
        rows = connection.execute(select(c.tenant, total(c.amount).label("amount")).where(mine).group_by(c.tenant))
        return {row.tenant: int(row.amount) for row in rows}


def daily_spend(engine: Engine, tenant: str, first: int, last: int) -> dict[int, Mapping[str, int]]:
    """Return what a tenant was charged in each of the days `first` to `last`, in micros by category. Raises Unavailable."""
    c = t.ledger.c
    mine = (c.tenant == tenant) & c.day.in_(range(first, last + 1)) & c.kind.in_(CHARGES) & (c.category != "")
    found: dict[int, dict[str, int]] = {}
    with open_record(engine) as connection:
        for row in connection.execute(select(c.day, c.category, total(c.amount).label("amount")).where(mine).group_by(c.day, c.category)):
            found.setdefault(row.day, {})[row.category] = int(row.amount)
    return dict(found)


def refusals(engine: Engine, tenants: Sequence[str], since_ms: int) -> dict[str, int]:
    """Return how often a run or a node of each of `tenants` was refused since then. Raises Unavailable."""
    c = t.audit.c
    mine = c.tenant.in_(list(tenants)) & (c.at >= since_ms) & c.action.in_(REFUSALS)
    with open_record(engine) as connection:
        rows = connection.execute(select(c.tenant, func.count().label("n")).where(mine).group_by(c.tenant))
        return {row.tenant: int(row.n) for row in rows}


def costliest(engine: Engine, tenant: str, since_ms: int, limit: int = 10) -> list[Costly]:
    """Return the runs of a tenant, submitted since then, that cost most. Raises Unavailable."""
    c = t.run.c
    columns = (c.run_id, c.generation, c.graph_name, c.status, c.outcome, c.cost_micros)
    # Not by the index of keys: see run_search.
    mine = select(*columns).where(c.submitted_at >= since_ms, c.tenant.concat("") == tenant, c.cost_micros > 0)
    with open_record(engine) as connection:
        rows = connection.execute(mine.order_by(c.cost_micros.desc(), c.run_id).limit(limit)).all()
    return [Costly(row.run_id, row.generation, row.graph_name, state_of(row.status, row.outcome), row.cost_micros) for row in rows]


def tenant_ids(engine: Engine, words: str | None, after: str | None, limit: int) -> list[str]:
    """Return the ids of tenants, by id, that come after one and have `words` in id or name. Raises Unavailable."""
    wanted = select(t.tenant.c.id).order_by(t.tenant.c.id).limit(limit)
    if after is not None:
        wanted = wanted.where(t.tenant.c.id > after)
    if words:
        part = words.lower()
        wanted = wanted.where(
            func.lower(t.tenant.c.id).contains(part, autoescape=True) | func.lower(t.tenant.c.name).contains(part, autoescape=True)
        )
    with open_record(engine) as connection:
        return [str(each) for each in connection.execute(wanted).scalars()]
