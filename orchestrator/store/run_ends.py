"""Reading from the log, event by event, which runs have ended: what writes files about them goes along it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select, tuple_

from . import tables as t
from .position import Position
from .read import open_record

TYPES = ("node.began", "node.ended", "node.retry", "node.lost", "node.expanded", "run.held")
"""What tells the attempts of a run, and that it had to wait."""


@dataclass(frozen=True)
class Ended:
    """A run's generation that ended: where in the log, and when (ms)."""

    run_id: str
    generation: int
    position: Position
    at: int


@dataclass(frozen=True)
class Ends:
    """What ended in a piece of the log, and up to where that was looked at."""

    runs: tuple[Ended, ...]
    until: Position


def run_ends(engine: Engine, after: Position, limit: int) -> Ends:
    """Return the runs that ended among the next `limit` events after a position. Raises Unavailable."""
    place = (t.event.c.epoch, t.event.c.seq)
    columns = (*place, t.event.c.type, t.event.c.run_id, t.event.c.generation, t.event.c.at)
    later = select(*columns).where(tuple_(*place) > (after.epoch, after.seq)).order_by(*place).limit(limit)
    with open_record(engine) as connection:
        rows = connection.execute(later).all()
    ended = (row for row in rows if row.type == "run.ended" and row.run_id)
    found = tuple(Ended(row.run_id, row.generation, Position(row.epoch, row.seq), row.at) for row in ended)
    return Ends(found, Position(rows[-1].epoch, rows[-1].seq) if rows else after)


def executions(engine: Engine, run_id: str, generation: int) -> list[Mapping[str, Any]]:
    """Return the events of a run of the `TYPES`, in their order. Raises Unavailable."""
    of_run = (t.event.c.run_id == run_id) & (t.event.c.generation == generation) & t.event.c.type.in_(TYPES)
    ordered = select(t.event.c.data).where(of_run).order_by(t.event.c.epoch, t.event.c.seq)
    with open_record(engine) as connection:
        return [json.loads(data) for data in connection.execute(ordered).scalars()]
