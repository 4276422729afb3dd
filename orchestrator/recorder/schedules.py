"""Requests about schedules: made, changed, paused, deleted; what was decided about their times, and what became of it.

The decision about a time holds because it is stored here by compare-and-set: of two who decide at once, one is `moved`.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection

from orchestrator.schedules.due import DUE, due_at
from orchestrator.schedules.terms import Terms
from orchestrator.store import tables as t
from orchestrator.store.writer import keep

from .trail import leave_trail

Request = dict[str, Any]
Answer = dict[str, Any]

TICKS_KEPT = 1_000
NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"

_TERMS = tuple(Terms.__dataclass_fields__)
_TIMES = ("cron", "every_s", "timezone")


def decide_schedule(connection: Connection, event: Request, payload: bytes | None) -> Answer:
    """Return the answer to a request about a schedule, storing what it asks for; `op` says what.

    `status` is accepted, same (nothing differs), exists (with other terms or another graph), unknown_tenant, unknown (no such schedule),
    moved (others decided those times, or it was changed meanwhile), lost (its graph is gone: ask again) or invalid with `reason`.
    """
    tenant, name = str(event.get("tenant") or ""), str(event.get("name") or "")
    try:
        if event.get("op") == "settle":
            return _settle(connection, json.loads(str(event["said"])))
        if connection.execute(select(t.tenant.c.id).where(t.tenant.c.id == tenant)).first() is None:
            return {"status": "unknown_tenant"}
        mine = (t.schedule.c.tenant == tenant) & (t.schedule.c.name == name)
        row = connection.execute(select(t.schedule).where(mine)).mappings().first()
        said = json.loads(str(event.get("said") or "{}"))
        if event.get("op") == "create":
            return _create(connection, event, row, said, payload)
        if row is None:
            return {"status": "unknown"}
        return _OPERATIONS[str(event.get("op"))](connection, event, row, said, payload)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return {"status": "invalid", "reason": str(error)}


def terms_of(row: Mapping[str, Any]) -> Terms:
    """Return the terms in a row of the table."""
    return Terms(**{name: row[name] for name in _TERMS})


def who(tenant: str, name: str) -> str:
    """Return what tells a schedule from all others."""
    return f"{tenant}/{name}"


def _create(connection: Connection, event: Request, row: Any, said: dict[str, Any], payload: bytes | None) -> Answer:
    if not re.fullmatch(NAME_PATTERN, str(event.get("name") or "")):
        raise ValueError("a schedule's name is 1 to 63 letters, digits, '_' and '-', not beginning with '-'")
    terms, digest, at = Terms.of(said["terms"]), str(said["digest"]), int(event["at"])
    if row is not None:
        same = terms_of(row) == terms and row["digest"] == digest
        return {"status": "same" if same else "exists"}
    if payload is None:
        return {"status": "lost"}
    identity = {"tenant": str(event["tenant"]), "name": str(event["name"])}
    graph = {"graph_name": str(said["graph"]), "digest": digest, "spec": zlib.compress(payload)}
    life = {"paused": 0, "version": 1, "created_at": at, "decided_to": at, "next_at": due_at(terms, who(**identity), at)}
    connection.execute(insert(t.schedule), {**identity, **graph, **terms.said(), **life})
    _note(connection, event, "schedule.created", {"new": terms.said(), "graph": graph["graph_name"]})
    return {"status": "accepted", "next_at": life["next_at"]}


def _change(connection: Connection, event: Request, row: Any, said: dict[str, Any], payload: bytes | None) -> Answer:
    old = terms_of(row)
    new, at = old.evolve(**said.get("terms", {})), int(event["at"])
    values: dict[str, Any] = {name: getattr(new, name) for name in _TERMS if getattr(new, name) != getattr(old, name)}
    changed = {name: [getattr(old, name), value] for name, value in values.items()}
    if said.get("digest") and said["digest"] != row["digest"]:
        if payload is None:
            return {"status": "lost"}
        values |= {"graph_name": str(said["graph"]), "digest": str(said["digest"]), "spec": zlib.compress(payload)}
        changed["graph"] = [f"{row['graph_name']} {row['digest'][:12]}", f"{values['graph_name']} {values['digest'][:12]}"]
    if not changed:
        return {"status": "same"}
    # Other times hold from now on: what the earlier ones would have been is not made up by the new ones.
    to = max(at, row["decided_to"]) if any(name in values for name in _TIMES) else row["decided_to"]
    values |= {"version": row["version"] + 1, "decided_to": to, "next_at": due_at(new, who(row["tenant"], row["name"]), to)}
    connection.execute(update(t.schedule).where(*_is(row)).values(values))
    for name, (before, after) in changed.items():
        _note(connection, event, "schedule.changed", {"field": name, "old": before, "new": after, "version": values["version"]}, name)
    return {"status": "accepted", "changed": changed}


def _pause(connection: Connection, event: Request, row: Any, _said: Any, _payload: Any) -> Answer:
    if row["paused"]:
        return {"status": "same"}
    connection.execute(update(t.schedule).where(*_is(row)).values(paused=1, version=row["version"] + 1))
    _note(connection, event, "schedule.paused", {})
    return {"status": "accepted"}


def _resume(connection: Connection, event: Request, row: Any, _said: Any, _payload: Any) -> Answer:
    if not row["paused"]:
        return {"status": "same"}
    # A pause was on purpose: times that passed during it are not made up; a backfill does that where it is wanted.
    to = max(int(event["at"]), row["decided_to"])
    values = {
        "paused": 0,
        "version": row["version"] + 1,
        "decided_to": to,
        "next_at": due_at(terms_of(row), who(row["tenant"], row["name"]), to),
    }
    connection.execute(update(t.schedule).where(*_is(row)).values(values))
    _note(connection, event, "schedule.resumed", {})
    return {"status": "accepted"}


def _delete(connection: Connection, event: Request, row: Any, _said: Any, _payload: Any) -> Answer:
    connection.execute(delete(t.schedule).where(*_is(row)))
    connection.execute(delete(t.tick).where(t.tick.c.tenant == row["tenant"], t.tick.c.schedule == row["name"]))
    _note(connection, event, "schedule.deleted", {"old": terms_of(row).said(), "graph": row["graph_name"]})
    return {"status": "accepted"}


def _decide(connection: Connection, _event: Request, row: Any, said: dict[str, Any], _payload: Any) -> Answer:
    since, to = int(said["from"]), int(said["to"])
    if row["paused"] or row["decided_to"] != since or row["version"] != said["version"] or row["created_at"] != said["created_at"]:
        return {"status": "moved"}
    ticks = [
        {"tenant": row["tenant"], "schedule": row["name"], "at": int(at), "state": str(state), "reason": str(reason)}
        for at, state, reason in said["ticks"]
    ]
    if to < since or any(not since < tick["at"] <= to for tick in ticks):
        raise ValueError(f"the times decided are not in ({since}, {to}]")
    keep(connection, t.tick, [{**tick, "run_id": None, "decided_at": int(said["now"]), "retry_at": 0} for tick in ticks])
    connection.execute(update(t.schedule).where(*_is(row)).values(decided_to=to, next_at=said["next_at"]))
    _prune(connection, row)
    return {"status": "accepted"}


def _settle(connection: Connection, said: dict[str, Any]) -> Answer:
    for tenant, name, at, state, run, reason, retry_at in said["ticks"]:
        still_due = (t.tick.c.tenant == tenant, t.tick.c.schedule == name, t.tick.c.at == int(at), t.tick.c.state == DUE)
        values = {"state": str(state), "run_id": run, "reason": str(reason), "retry_at": int(retry_at)}
        connection.execute(update(t.tick).where(*still_due).values(values))
    return {"status": "accepted"}


_OPERATIONS: Mapping[str, Callable[[Connection, Request, Any, dict[str, Any], bytes | None], Answer]] = {
    "set": _change,
    "pause": _pause,
    "resume": _resume,
    "delete": _delete,
    "decide": _decide,
}


def _is(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return t.schedule.c.tenant == row["tenant"], t.schedule.c.name == row["name"]


def _prune(connection: Connection, row: Mapping[str, Any]) -> None:
    mine = (t.tick.c.tenant == row["tenant"], t.tick.c.schedule == row["name"])
    newest = select(t.tick.c.at).where(*mine).order_by(t.tick.c.at.desc()).offset(TICKS_KEPT).limit(1)
    last = connection.execute(newest).scalar()
    if last is not None:
        connection.execute(delete(t.tick).where(*mine, t.tick.c.at <= last, t.tick.c.state != DUE))


def _note(connection: Connection, event: Request, action: str, data: Mapping[str, Any], field: str = "") -> None:
    name = ".".join(filter(None, (str(event["request"]), action, field)))
    leave_trail(connection, event, name, action, f"schedule:{event['name']}", data, tenant=str(event["tenant"]))
