"""One batch of events into SQL: rows, answers and cursor in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from sqlalchemy import Engine, select
from sqlalchemy.engine import Connection

from orchestrator import keys
from orchestrator.store import tables as t
from orchestrator.store.changes import Row
from orchestrator.store.position import Position
from orchestrator.store.writer import keep, move_cursor, read_cursor, write

from .chaining import extend_chains
from .learning import learn
from .projection import Entry, incident, parse_event, parts, project
from .requests import decide
from .tenants import Answer

log = logging.getLogger("headgate.recorder")

_DECIDES = ("decision.made", "decision.applied")

_OF_MONEY = ("money.", "run.", "level.", "node.began", "decision.applied", "request.tenant", "request.policy", "request.status")
"""How the types begin of whatever changes what a tenant has spent, set aside, or may spend."""

_WORKER_ENDS = ("worker.retired", "worker.dead", "epoch.opened")


@dataclass
class Applied:
    """What one transaction did, to be announced after it.

    cursor: where the log stands in SQL. events: how many were new. ended: runs, `run.generation`. answers: by request.
    workers_ended: whether some did.
    decided: runs that the cost agent decided about, or whose decision was applied.
    entered: tenants that entered a level of their budget, and what tripped it.
    logs: runs and generations that ended, or that were charged something after their end.
    spenders: tenants whose money, runs or policy changed.
    """

    cursor: Position
    events: int = 0
    ended: list[str] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    workers_ended: bool = False
    decided: list[str] = field(default_factory=list)
    entered: dict[str, str] = field(default_factory=dict)
    logs: list[tuple[str, int]] = field(default_factory=list)
    spenders: set[str] = field(default_factory=set)

    @property
    def tenants(self) -> list[str]:
        """The tenants that are new or changed."""
        accepted = (answer for answer in self.answers.values() if answer["status"] == "accepted")
        return list(dict.fromkeys(str(answer["tenant"]) for answer in accepted if "tenant" in answer))

    @property
    def prices(self) -> bool:
        """Whether other prices hold for somebody."""
        return any(answer["status"] == "accepted" and "of" in answer for answer in self.answers.values())


def payloads_of(client: redis.Redis, entries: list[Entry]) -> dict[str, bytes]:
    """Return the graphs and reports that the requests among `entries` brought along, as far as they still exist."""
    brings = ('"request.submit"', '"request.schedule"', '"request.report"')
    requests = [str(parse_event(text).get("request")) for _, text in entries if any(kind in text for kind in brings)]
    if not requests:
        return {}
    found: Any = client.mget([keys.payload(request) for request in requests])
    return {request: text.encode() for request, text in zip(requests, found, strict=True) if text is not None}


def apply(engine: Engine, entries: list[Entry], payloads: Mapping[str, bytes], key: bytes) -> Applied:
    """Store a batch and move the cursor, all or nothing; entries that are in SQL already change nothing.

    key: what the events are chained with.

    Raises CursorMoved when another recorder was faster, SQLAlchemyError when SQL cannot be reached.
    """
    with engine.begin() as connection:
        old = read_cursor(connection)
        applied = Applied(old)
        differing(connection, [entry for entry in entries if entry.position <= old])
        for part in parts([entry for entry in entries if entry.position > old]):
            changes = project(part)
            changes.incidents += _holes(applied.cursor, part)
            applied.answers |= decide(connection, changes.requests, payloads)
            extend_chains(connection, key, changes.events)
            write(connection, changes)
            learn(connection, {key for key, row in changes.runs.items() if row["status"] == "ended"})
            applied.cursor = part[-1].position
            applied.events += len(part)
            applied.ended += changes.ended
            applied.logs += [(row["run_id"], row["generation"]) for row in changes.events if _completes_log(row)]
            applied.decided += [str(row["run_id"]) for row in changes.events if row["type"] in _DECIDES]
            applied.entered |= changes.entered
            applied.spenders |= {str(row["tenant"]) for row in changes.events if row["tenant"] and row["type"].startswith(_OF_MONEY)}
            applied.workers_ended |= any(row["type"] in _WORKER_ENDS for row in changes.events)
        if applied.cursor != old:
            move_cursor(connection, old, applied.cursor)
    return applied


def _completes_log(row: Row) -> bool:
    return row["type"] == "run.ended" or (row["type"] == "money.settled" and '"waste"' in row["data"])


def differing(connection: Connection, seen: list[Entry]) -> int:
    """Return how many of these recorded events have another content in SQL; each is an incident, and never written over SQL's."""
    found = 0
    for position, text in seen:
        at_position = select(t.event.c.data, t.event.c.at).where(t.event.c.epoch == position.epoch, t.event.c.seq == position.seq)
        stored = connection.execute(at_position).first()
        if stored is not None and stored.data != text:
            log.error("event %s is in SQL with another content", position)
            keep(connection, t.incident, [incident("conflict", position, stored.at, {"stored": stored.data, "found": text})])
            found += 1
    return found


def _holes(cursor: Position, part: list[Entry]) -> list[Row]:
    """Return an incident for each place where events are missing: within an epoch, or between the cursor and the next epoch.

    An epoch says after which event it was opened.
    """
    holes: list[Row] = []
    before = cursor
    for position, text in part:
        if position.epoch > before.epoch and position.seq == 1:
            follows = str(parse_event(text).get("after", before)) == str(before)
        else:
            follows = position == (before.epoch, before.seq + 1)
        if not follows:
            log.error("the log has a hole between %s and %s", before, position)
            holes.append(incident("gap", position, 0, {"cursor": str(before)}))
        before = position
    return holes
