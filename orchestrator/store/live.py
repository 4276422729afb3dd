"""What recovery reads: every live run with its nodes and its money."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.engine import Connection

from cost.task_ledger import GENERATION
from orchestrator.rebuild import Recorded

from . import tables as t
from .adopted import becoming, kept_text, read_adopted
from .expansions import expansions
from .sums import total

CHANGES_READ = 1_000
"""Changes of backpressure that a rebuild looks back at."""

_SEQUENCES = 2**40
"""More events than an epoch has: epoch and sequence as one number."""


def live_ids(connection: Connection) -> list[tuple[str, int]]:
    """Return run and generation of every run that was admitted, or cancelled while it waited, and is not over, oldest first."""
    known = t.run.c.hold.is_not(None) | (t.run.c.status == "cancelling")
    admitted = select(t.run.c.run_id, t.run.c.generation).where(t.run.c.status.in_(t.LIVE), known)
    return [(row.run_id, row.generation) for row in connection.execute(admitted.order_by(t.run.c.submitted_at, t.run.c.run_id))]


def live_runs(connection: Connection) -> Iterator[Recorded]:
    """Yield every run that was admitted and is not over, oldest first; one at a time, because together they may be large."""
    for run_id, generation in live_ids(connection):
        row = connection.execute(select(t.run).where(t.run.c.run_id == run_id, t.run.c.generation == generation)).mappings().one()
        nodes = connection.execute(select(t.node).where(t.node.c.run_id == run_id, t.node.c.generation == generation)).mappings()
        of_run = and_(t.ledger.c.run_id == run_id, t.ledger.c.generation == generation)
        ledger = connection.execute(select(t.ledger).where(of_run).order_by(t.ledger.c.id)).mappings().all()
        made = (t.event.c.run_id == run_id) & (t.event.c.generation == generation) & t.event.c.type.in_(("decision.made", "run.approved"))
        told = connection.execute(select(t.event.c.data).where(made).order_by(t.event.c.epoch, t.event.c.seq)).scalars()
        decisions = [json.loads(data) for data in told]
        by_id = {node["node_id"]: dict(node) for node in nodes}
        expanded, adopts = expansions(connection, run_id, generation), _adopts(connection, dict(row), by_id)
        paused_at = connection.execute(select(t.pause.c.at).where(t.pause.c.scope == f"run:{run_id}.{generation}")).scalar()
        yield Recorded(dict(row), by_id, [dict(entry) for entry in ledger], decisions, expanded, adopts, paused_at)


def _adopts(connection: Connection, run: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what a run adopts that its nodes have not become yet, as state keeps it."""
    wanted = {node: generation for node, generation in json.loads(run["adopts"] or "{}").items() if node not in nodes}
    found = read_adopted(connection, run["run_id"], wanted) if wanted else {}
    found |= {node: becoming(source) for node, source in json.loads(run["becomes"] or "{}").items() if node not in nodes}
    return {node: kept_text(*adopted) for node, adopted in found.items()}


def over_on_record(connection: Connection, names: Sequence[str]) -> list[str]:
    """Return those of the runs `run.generation` whose end is on record."""
    pairs = [tuple(name.rsplit(".", 1)) for name in names]
    wanted = t.run.c.run_id.in_([run_id for run_id, _ in pairs])
    rows = connection.execute(select(t.run.c.run_id, t.run.c.generation).where(t.run.c.status == "ended", wanted)).all()
    over = {f"{run_id}.{generation}" for run_id, generation in rows}
    return [name for name in names if name in over]


def charged_since(connection: Connection, day: int) -> list[Mapping[str, Any]]:
    """Return what was charged since `day` (days since 1970-01-01 UTC), summed by tenant, day, kind and category."""
    columns = (t.ledger.c.tenant, t.ledger.c.day, t.ledger.c.kind, t.ledger.c.category)
    sums = select(*columns, total(t.ledger.c.amount).label("amount")).where(
        t.ledger.c.kind.in_(("settle", "waste", "adjust")), t.ledger.c.day >= day
    )
    return [dict(row) for row in connection.execute(sums.group_by(*columns)).mappings()]


def task_ledger(connection: Connection, since_ms: int) -> dict[str, list[Mapping[str, Any]]]:
    """Return the entries of each ordinary task that has an open execution or an entry since `since_ms`, by the task's run."""
    entry, closing = t.ledger.alias(), t.ledger.alias()
    execution = ("run_id", "generation", "node_id", "attempt")
    closed = select(closing.c.id).where(
        *(closing.c[name] == entry.c[name] for name in execution), closing.c.kind.not_in(("reserve", "extend"))
    )
    wanted = select(entry.c.run_id).where(
        entry.c.generation == GENERATION,
        entry.c.kind != "adjust",
        or_(entry.c.at >= since_ms, and_(entry.c.kind == "reserve", ~exists(closed))),
    )
    rows = select(t.ledger).where(t.ledger.c.generation == GENERATION, t.ledger.c.run_id.in_(wanted)).order_by(t.ledger.c.id)
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in connection.execute(rows).mappings():
        found.setdefault(row["run_id"], []).append(dict(row))
    return found


def adjustments(connection: Connection, day: int) -> Iterator[Mapping[str, Any]]:
    """Yield the adjustments of days since `day` (days since 1970-01-01 UTC): id, tenant, amount, category, day."""
    columns = (t.ledger.c.id, t.ledger.c.tenant, t.ledger.c.amount, t.ledger.c.category, t.ledger.c.day)
    wanted = select(*columns).where(t.ledger.c.kind == "adjust", t.ledger.c.day >= day)
    for row in connection.execute(wanted, execution_options={"yield_per": CHANGES_READ}).mappings():
        yield dict(row)


def settled_by(connection: Connection) -> dict[str, int]:
    """Return how many executions were settled by whom."""
    execution = (t.ledger.c.run_id, t.ledger.c.generation, t.ledger.c.node_id, t.ledger.c.attempt)
    each = select(t.ledger.c.by, *execution).where(t.ledger.c.kind == "settle").distinct().subquery()
    return {row.by: int(row.n) for row in connection.execute(select(each.c.by, func.count().label("n")).group_by(each.c.by))}


def level_events(connection: Connection, since_ms: int) -> list[Mapping[str, Any]]:
    """Return the events of levels since then, in their order."""
    of_levels = select(t.event.c.data).where(t.event.c.type.in_(("level.entered", "level.left")), t.event.c.at >= since_ms)
    return [json.loads(row.data) for row in connection.execute(of_levels.order_by(t.event.c.epoch, t.event.c.seq))]


def held_runs(connection: Connection) -> list[Mapping[str, Any]]:
    """Return the rows of runs that wait to be admitted, in the order in which they came to wait."""
    first = select(func.min(t.event.c.epoch * _SEQUENCES + t.event.c.seq)).where(
        t.event.c.run_id == t.run.c.run_id, t.event.c.generation == t.run.c.generation, t.event.c.type == "run.held"
    )
    waiting = select(t.run).where(t.run.c.status == "held").order_by(first.scalar_subquery(), t.run.c.run_id)
    return [dict(row) for row in connection.execute(waiting).mappings()]


def pressures(connection: Connection) -> dict[str, Mapping[str, Any]]:
    """Return the last change of backpressure of each pool, as its event has it."""
    newest = select(t.event.c.data).where(t.event.c.type == "pressure.changed").order_by(t.event.c.epoch.desc(), t.event.c.seq.desc())
    found: dict[str, Mapping[str, Any]] = {}
    for row in connection.execute(newest.limit(CHANGES_READ)):
        event = json.loads(row.data)
        found.setdefault(str(event["pool"]), event)
    return found
