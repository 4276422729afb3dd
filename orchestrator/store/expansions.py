"""What nodes of a run became while it went on, by its events `node.expanded`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.engine import Connection

from . import tables as t


def expansions(connection: Connection, run_id: str, generation: int) -> list[dict[str, Any]]:
    """Return the events that tell what nodes of a run became, in their order."""
    of_run = and_(t.event.c.run_id == run_id, t.event.c.generation == generation, t.event.c.type == "node.expanded")
    rows = connection.execute(select(t.event.c.data).where(of_run).order_by(t.event.c.epoch, t.event.c.seq))
    return [json.loads(row.data) for row in rows]


def returned(connection: Connection, run_ids: Collection[str]) -> dict[tuple[str, int], dict[str, str]]:
    """Return by run and generation the graphs, as results are kept, that tasks of its nodes returned, or that it knows from before."""
    found: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    known = select(t.run.c.run_id, t.run.c.generation, t.run.c.becomes).where(t.run.c.run_id.in_(run_ids), t.run.c.becomes.is_not(None))
    for row in connection.execute(known):
        found[row.run_id, row.generation] |= json.loads(row.becomes)
    of_graphs = and_(t.event.c.run_id.in_(run_ids), t.event.c.type == "node.expanded", t.event.c.data.contains('"source":'))
    for row in connection.execute(select(t.event.c.run_id, t.event.c.generation, t.event.c.data).where(of_graphs)):
        event = json.loads(row.data)
        if "source" in event:
            found[row.run_id, row.generation][str(event["node"])] = str(event["source"])
    return dict(found)


def became(event: Mapping[str, Any]) -> dict[str, bool]:
    """Return the nodes that an event `node.expanded` tells of, and whether the run needs each."""
    node, first = str(event["node"]), int(event["first"])
    names = event.get("nodes") or range(first, first + int(event["count"]))
    optional = event.get("optional") or ()
    return {id_: optional != 1 and id_ not in optional for id_ in (f"{node}.{name}" for name in names)}
