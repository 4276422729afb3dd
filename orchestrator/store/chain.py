"""The ends of chains as they are on record, and the events that every chain passes through."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from orchestrator.chain import Head, key_id

from . import tables as t
from .position import Position

Name = tuple[str, int]
"""Run and generation; ('', 0) is what belongs to no generation."""

PLATFORM: Name = ("", 0)

READ_AT_ONCE = 500

_HEADS = select(t.chain.c.run_id, t.chain.c.generation, t.chain.c.events, t.chain.c.epoch, t.chain.c.seq, t.chain.c.link).where(
    t.chain.c.run_id.in_(bindparam("runs", expanding=True))
)


def read_heads(connection: Connection, names: Collection[Name]) -> dict[Name, Head]:
    """Return the ends of those of the named chains that exist."""
    runs = sorted({run_id for run_id, _ in names})
    found: dict[Name, Head] = {}
    for first in range(0, len(runs), READ_AT_ONCE):
        for row in connection.execute(_HEADS, {"runs": runs[first : first + READ_AT_ONCE]}):
            if (row.run_id, row.generation) in names:
                found[row.run_id, row.generation] = Head(row.events, Position(row.epoch, row.seq), row.link)
    return found


def write_heads(connection: Connection, key: bytes, heads: Mapping[Name, Head]) -> None:
    """Put the ends of chains on record, sealed."""
    maker = key_id(key)
    rows = [
        {
            "run_id": run_id,
            "generation": generation,
            "events": head.events,
            "epoch": head.position.epoch,
            "seq": head.position.seq,
            "link": head.link,
            "seal": head.seal(key, run_id, generation),
            "key_id": maker,
        }
        for (run_id, generation), head in heads.items()
    ]
    if rows:
        connection.execute(_upsert(connection.dialect.name), rows)


def rebuilds(connection: Connection, after: Position) -> list[tuple[Position, str]]:
    """Return position and text of each epoch after `after` that began with state rebuilt from the record, in their order.

    What such an event did to a run is in no event of the run's own, so it is part of the chain of every run that went on after it.
    """
    columns = select(t.event.c.epoch, t.event.c.seq, t.event.c.data)
    opened = columns.where(text(t.OF_WORKERS), t.event.c.type == "epoch.opened", t.event.c.epoch > after.epoch)
    found = connection.execute(opened.order_by(t.event.c.epoch, t.event.c.seq))
    return [(Position(row.epoch, row.seq), row.data) for row in found if is_rebuild("epoch.opened", row.data)]


def is_rebuild(kind: str, data: str) -> bool:
    """Say whether an event tells that state was rebuilt from the record."""
    if kind != "epoch.opened":
        return False
    try:
        return bool(int(json.loads(data).get("rebuilt") or 0))
    except (ValueError, TypeError, AttributeError):
        return False


@cache
def _upsert(dialect: str) -> Any:
    statement = (sqlite if dialect == "sqlite" else postgresql).insert(t.chain)
    changed = {name: statement.excluded[name] for name in ("events", "epoch", "seq", "link", "seal", "key_id")}
    return statement.on_conflict_do_update(index_elements=["run_id", "generation"], set_=changed)
