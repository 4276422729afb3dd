"""Chaining what is recorded: a link for each event, in the transaction that stores it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from sqlalchemy import bindparam, select, update
from sqlalchemy.engine import Connection

from orchestrator.chain import Head, key_id, link
from orchestrator.store import tables as t
from orchestrator.store.chain import PLATFORM, Name, is_rebuild, read_heads, rebuilds, write_heads
from orchestrator.store.changes import Row
from orchestrator.store.position import Position
from orchestrator.store.writer import keep, read_cursor

log = logging.getLogger("headgate.recorder")

AT_ONCE = 1_000


def extend_chains(connection: Connection, key: bytes, events: Sequence[Row]) -> None:
    """Give each of these rows of events, which follow what is recorded, its link, and put the new ends of the chains on record.

    An event that tells of a rebuild is a link of its own in every chain that goes on after it.
    """
    if not events:
        return
    names = [_name(row) for row in events]
    heads = read_heads(connection, set(names))
    earliest = min((head.position for name, head in heads.items() if name != PLATFORM), default=None)
    passed: dict[Position, str] = {}
    if earliest is not None and earliest.epoch < int(events[-1]["epoch"]):
        passed = dict(rebuilds(connection, earliest))
    for row, name in zip(events, names, strict=True):
        position, text = Position(row["epoch"], row["seq"]), row["data"]
        head = heads.get(name) or Head.new(key, *name)
        if head.events and name != PLATFORM and head.position.epoch < position.epoch:
            for at, told in passed.items():
                if head.position < at < position:
                    head = head.then(key, at, told)
        row["link"] = link(key, head.link, position, text)
        heads[name] = Head(head.events + 1, position, row["link"])
        if is_rebuild(row["type"], text):
            passed[position] = text
    write_heads(connection, key, {name: heads[name] for name in set(names)})


def _name(row: Row) -> Name:
    # What is asked about a run and belongs to none of its generations is the platform's as well.
    return (row["run_id"], row["generation"]) if row["run_id"] and row["generation"] is not None else PLATFORM


def adopt(connection: Connection, key: bytes, now_ms: int) -> int:
    """Chain the log of a record that was made before there were chains, as it is now; return how many events it has."""
    unlinked = select(t.event).where(t.event.c.link.is_(None)).order_by(t.event.c.epoch, t.event.c.seq).limit(AT_ONCE)
    linked = update(t.event).where(t.event.c.epoch == bindparam("of_epoch"), t.event.c.seq == bindparam("of_seq"))
    statement = linked.values(link=bindparam("made"))
    last, total = Position(0, 0), 0
    while True:
        later = (t.event.c.epoch > last.epoch) | ((t.event.c.epoch == last.epoch) & (t.event.c.seq > last.seq))
        rows: list[Row] = [dict(row) for row in connection.execute(unlinked.where(later)).mappings()]
        if not rows:
            break
        extend_chains(connection, key, rows)
        connection.execute(statement, [{"of_epoch": row["epoch"], "of_seq": row["seq"], "made": row["link"]} for row in rows])
        last, total = Position(rows[-1]["epoch"], rows[-1]["seq"]), total + len(rows)
    if total:
        log.warning("the log up to %s is older than its chain: its %s events are chained as they are now", last, total)
        _tell(connection, "chained", now_ms, {"events": total})
    return total


def notice_another_key(connection: Connection, key: bytes, now_ms: int) -> bool:
    """Say whether the record was chained with another key than `key` up to now; that is kept as an incident."""
    held = connection.execute(select(t.chain.c.key_id).where(t.chain.c.run_id == "", t.chain.c.generation == 0)).scalar()
    if held is None or held == key_id(key):
        return False
    log.error(
        "the log was chained with key %s until now, and goes on with %s: is HEADGATE_LOG_KEY or log.key the right one?", held, key_id(key)
    )
    _tell(connection, "rekeyed", now_ms, {"before": held, "after": key_id(key)})
    return True


def _tell(connection: Connection, kind: str, now_ms: int, detail: dict[str, object]) -> None:
    row = {"id": f"{kind}.{read_cursor(connection)}", "at": now_ms, "kind": kind, "detail": json.dumps(detail)}
    keep(connection, t.incident, [row])
