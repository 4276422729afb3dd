"""What recovery reads: every live run with its nodes and its money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection

from orchestrator.rebuild import Recorded

from . import tables as t


def live_ids(connection: Connection) -> list[tuple[str, int]]:
    """Return run and generation of every run that was admitted and is not over, oldest first."""
    admitted = select(t.run.c.run_id, t.run.c.generation).where(t.run.c.status.in_(t.LIVE), t.run.c.hold.is_not(None))
    return [(row.run_id, row.generation) for row in connection.execute(admitted.order_by(t.run.c.submitted_at, t.run.c.run_id))]


def live_runs(connection: Connection) -> Iterator[Recorded]:
    """Yield every run that was admitted and is not over, oldest first; one at a time, because together they may be large."""
    for run_id, generation in live_ids(connection):
        row = connection.execute(select(t.run).where(t.run.c.run_id == run_id, t.run.c.generation == generation)).mappings().one()
        nodes = connection.execute(select(t.node).where(t.node.c.run_id == run_id, t.node.c.generation == generation)).mappings()
        of_run = and_(t.ledger.c.run_id == run_id, t.ledger.c.generation == generation)
        ledger = connection.execute(select(t.ledger).where(of_run).order_by(t.ledger.c.id)).mappings().all()
        yield Recorded(dict(row), {node["node_id"]: dict(node) for node in nodes}, [dict(entry) for entry in ledger])


def charged_since(connection: Connection, day: int) -> list[Mapping[str, Any]]:
    """Return what was charged since `day` (days since 1970-01-01 UTC), summed by tenant, day, kind and category."""
    columns = (t.ledger.c.tenant, t.ledger.c.day, t.ledger.c.kind, t.ledger.c.category)
    sums = select(*columns, func.sum(t.ledger.c.amount).label("amount")).where(
        t.ledger.c.kind.in_(("settle", "waste")), t.ledger.c.day >= day
    )
    return [dict(row) for row in connection.execute(sums.group_by(*columns)).mappings()]
