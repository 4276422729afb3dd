"""Reading the nodes of a run as pages draw them: ten thousand at once without their results, or one with all that is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select

from tenancy.errors import Unknown

from . import tables as t
from .position import Position
from .read import NodeView, _node_view, get_graph, open_record

EVENTS_MAX = 500
"""Events of one node: of those that began without end, as many as there is use for."""

COLUMNS = (
    *("node_id", "state", "outcome", "reason", "attempt", "fails", "lost", "worker", "verdict", "queued_at", "started_at", "finished_at"),
    *("cost_micros", "adopted", "decision"),
)


@dataclass(frozen=True)
class EntryView:
    """An entry of the ledger about a node: amounts in micros, `at` in epoch seconds."""

    attempt: int
    kind: str
    category: str
    amount: int
    by: str
    at: float
    price_version: str


@dataclass(frozen=True)
class UsageView:
    """What an attempt used, by category and unit, quantities as text."""

    attempt: int
    price_version: str
    lines: Sequence[Sequence[str]]


def node_columns(engine: Engine, run_id: str, generation: int) -> list[Mapping[str, Any]]:
    """Return what pages draw of each node that has a row: the columns of `COLUMNS`, times in ms. Raises Unavailable."""
    of_run = select(*(t.node.c[name] for name in COLUMNS)).where(t.node.c.run_id == run_id, t.node.c.generation == generation)
    with open_record(engine) as connection:
        return [dict(row) for row in connection.execute(of_run.order_by(t.node.c.node_id)).mappings()]


def get_node(engine: Engine, run_id: str, generation: int, node: str, spec: Mapping[str, Any] | None) -> NodeView:
    """Return one node, with what its graph says of it. Raises Unknown where neither knows it, Unavailable."""
    mine = select(t.node).where(t.node.c.run_id == run_id, t.node.c.generation == generation, t.node.c.node_id == node)
    with open_record(engine) as connection:
        row = connection.execute(mine).mappings().first()
    if row is None and spec is None:
        raise Unknown(f"run {run_id} has no node {node!r}")
    return _node_view(node, None if row is None else dict(row), spec or {})


def ran_in(engine: Engine, run_id: str, generation: int, node: str) -> int:
    """Return the generation that ran a node: an earlier one where it was adopted. Raises Unknown, Unavailable."""
    text = get_graph(engine, run_id, generation)
    spec = next((each for each in json.loads(text)["nodes"] if each["id"] == node), None) if text is not None else None
    return get_node(engine, run_id, generation, node, spec).adopted or generation


def node_standing(engine: Engine, run_id: str, generation: int, node: str) -> tuple[str | None, int]:
    """Return the outcome of a node, None while it has none, and its newest attempt, 0 where it has not begun. Raises Unavailable."""
    mine = select(t.node.c.outcome, t.node.c.attempt).where(
        t.node.c.run_id == run_id, t.node.c.generation == generation, t.node.c.node_id == node
    )
    with open_record(engine) as connection:
        row = connection.execute(mine).first()
    return (None, 0) if row is None else (row.outcome, row.attempt or 0)


def last_event(engine: Engine, run_id: str, generation: int) -> Position | None:
    """Return the position of a run's newest event on record, None where it has none. Raises Unavailable."""
    of_run = select(t.event.c.epoch, t.event.c.seq).where(t.event.c.run_id == run_id, t.event.c.generation == generation)
    with open_record(engine) as connection:
        row = connection.execute(of_run.order_by(t.event.c.epoch.desc(), t.event.c.seq.desc()).limit(1)).first()
    return None if row is None else Position(row.epoch, row.seq)


def node_events(engine: Engine, run_id: str, generation: int, node: str) -> list[Mapping[str, Any]]:
    """Return the newest events that name a node, oldest first. Raises Unavailable."""
    mine = select(t.event.c.data).where(t.event.c.run_id == run_id, t.event.c.generation == generation, t.event.c.node_id == node)
    with open_record(engine) as connection:
        rows = connection.execute(mine.order_by(t.event.c.epoch.desc(), t.event.c.seq.desc()).limit(EVENTS_MAX)).scalars()
        return [json.loads(row) for row in rows][::-1]


def node_money(engine: Engine, run_id: str, generation: int, node: str) -> tuple[list[EntryView], list[UsageView]]:
    """Return the entries about a node in their order, and what its attempts used. Raises Unavailable."""
    with open_record(engine) as connection:
        mine = select(t.ledger).where(t.ledger.c.run_id == run_id, t.ledger.c.generation == generation, t.ledger.c.node_id == node)
        rows = connection.execute(mine.order_by(t.ledger.c.at, t.ledger.c.id)).mappings()
        entries = [
            EntryView(row["attempt"], row["kind"], row["category"], row["amount"], row["by"], row["at"] / 1000, row["price_version"] or "")
            for row in rows
        ]
        used = select(t.usage).where(t.usage.c.run_id == run_id, t.usage.c.generation == generation, t.usage.c.node_id == node)
        usage = [
            UsageView(row["attempt"], row["price_version"], json.loads(row["lines"] or "[]"))
            for row in connection.execute(used.order_by(t.usage.c.attempt)).mappings()
        ]
    return entries, usage


def waits_s(engine: Engine, run_id: str, generation: int) -> tuple[float | None, float | None]:
    """Return the mean and the longest time that nodes of a run waited for a worker after they were due, in seconds. Raises Unavailable."""
    waited = t.node.c.started_at - t.node.c.queued_at
    of_run = select(func.avg(waited), func.max(waited)).where(t.node.c.run_id == run_id, t.node.c.generation == generation)
    with open_record(engine) as connection:
        mean, longest = connection.execute(of_run).one()
    return (None if mean is None else float(mean) / 1000, None if longest is None else float(longest) / 1000)
