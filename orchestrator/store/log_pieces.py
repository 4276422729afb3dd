"""Reading the log in pieces, in its order, whatever runs it is of: what a list of tasks and counters are made from."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select, tuple_

from orchestrator.json_pieces import nodes_of

from . import tables as t
from .position import START, Position
from .read import open_record


@dataclass(frozen=True)
class Piece:
    """Events in their order, each with its position, and up to where the log was looked at."""

    events: tuple[tuple[Position, Mapping[str, Any]], ...]
    until: Position


def newest_but(engine: Engine, events: int) -> Position:
    """Return the position after which there are at most so many events. Raises Unavailable."""
    order = (t.event.c.epoch.desc(), t.event.c.seq.desc())
    with open_record(engine) as connection:
        row = connection.execute(select(t.event.c.epoch, t.event.c.seq).order_by(*order).offset(events).limit(1)).first()
    return START if row is None else Position(row.epoch, row.seq)


def piece_after(engine: Engine, after: Position, limit: int, types: Collection[str]) -> Piece:
    """Return the events of these types among the next `limit` events after a position. Raises Unavailable."""
    place = (t.event.c.epoch, t.event.c.seq)
    later = select(*place, t.event.c.type, t.event.c.data).where(tuple_(*place) > (after.epoch, after.seq)).order_by(*place)
    with open_record(engine) as connection:
        rows = connection.execute(later.limit(limit)).all()
    found = tuple((Position(row.epoch, row.seq), json.loads(row.data)) for row in rows if row.type in types)
    return Piece(found, Position(rows[-1].epoch, rows[-1].seq) if rows else after)


def task_names(engine: Engine, run_id: str, generation: int) -> dict[str, str]:
    """Return the task of each node of a run's graph; empty where none is on record. Raises Unavailable."""
    of_run = (t.run.c.run_id == run_id) & (t.run.c.generation == generation)
    with open_record(engine) as connection:
        packed = connection.execute(select(t.run.c.spec).where(of_run)).scalar()
    return {} if packed is None else {str(node["id"]): str(node.get("task")) for node in nodes_of(zlib.decompress(packed))}
