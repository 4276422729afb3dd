"""Requests to the record: durable submissions and new tenants, decided inside the recorder's transaction.

A request is an event; its answer is stored under the request's id, so a request that is sent twice or read twice
is answered the same.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from orchestrator.store import tables as t
from orchestrator.store.policy import Policy
from orchestrator.store.writer import keep
from tenancy.priorities import Priority

from .projection import amount

ANSWER_KEPT_S = 60
"""How long an answer waits in Redis for who asked."""

DEFAULT_TENANT = "default"

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")

Request = dict[str, Any]
Answer = dict[str, Any]


def decide(connection: Connection, requests: list[Request], payloads: Mapping[str, bytes]) -> dict[str, Answer]:
    """Return an answer for each request, storing what the accepted ones ask for.

    `payloads` holds the graph, canonical JSON, of each submission whose graph still exists. An answer's `status` is
    accepted, duplicate, conflict, unknown_tenant, suspended, lost (the graph is gone: submit again) or invalid.
    """
    answers: dict[str, Answer] = {}
    for event in requests:
        request = str(event.get("request") or "")
        if not request:
            continue
        stored = stored_answer(connection, request)
        if stored is None:
            stored = _submit(connection, event, payloads.get(request)) if event["t"] == "request.submit" else _tenant(connection, event)
            row = {"id": request, "at": int(event["at"]), "answer": json.dumps(stored)}
            connection.execute(insert(t.request), row)
        answers[request] = stored
    return answers


def stored_answer(connection: Connection, request: str) -> Answer | None:
    """Return what `request` was answered, or None if it was not decided yet."""
    text = connection.execute(select(t.request.c.answer).where(t.request.c.id == request)).scalar()
    return None if text is None else dict(json.loads(text))


def _submit(connection: Connection, event: Request, payload: bytes | None) -> Answer:
    try:
        row = _run_row(event)
    except (KeyError, ValueError, TypeError, AttributeError):
        return {"status": "invalid", "run": event.get("run")}
    standing = connection.execute(select(t.tenant.c.status).where(t.tenant.c.id == row["tenant"])).scalar()
    if standing is None:
        return {"status": "unknown_tenant", "run": row["run_id"]}
    if standing != "active":
        return {"status": "suspended", "run": row["run_id"]}
    taken = _taken(connection, row)
    if taken is not None:
        same = taken.digest == row["digest"] and taken.tenant == row["tenant"]
        return {"status": "duplicate" if same else "conflict", "run": taken.run_id}
    if payload is None:
        return {"status": "lost", "run": row["run_id"]}
    row["spec"] = zlib.compress(payload)
    connection.execute(insert(t.run), row)
    return {"status": "accepted", "run": row["run_id"]}


def _run_row(event: Request) -> dict[str, Any]:
    return {
        "run_id": str(event["run"]),
        "generation": int(event.get("gen") or 1),
        "tenant": str(event["tenant"]),
        "key": event.get("key") or None,
        "graph_name": str(event.get("graph") or ""),
        "digest": str(event.get("digest") or ""),
        "status": "submitted",
        "submitted_at": int(event["at"]),
        "budget": amount(event.get("budget")),
        "priority": int(Priority.parse(event.get("priority"))),
        "labels": json.dumps(dict(event.get("labels") or {}), sort_keys=True),
        "cost_micros": 0,
    }


def _taken(connection: Connection, row: dict[str, Any]) -> Any:
    """Return the run that has the new run's key or id already.

    A refused run keeps its row and gives up its key: nothing of it ran, so the same key may be tried again.
    """
    columns = select(t.run.c.run_id, t.run.c.digest, t.run.c.tenant, t.run.c.status)
    if row["key"] is not None:
        holds_key = (t.run.c.tenant == row["tenant"]) & (t.run.c.key == row["key"]) & (t.run.c.generation == row["generation"])
        found = connection.execute(columns.where(holds_key)).first()
        if found is not None and found.status != "refused":
            return found
        if found is not None:
            connection.execute(update(t.run).where(holds_key).values(key=None))
    return connection.execute(columns.where(t.run.c.run_id == row["run_id"], t.run.c.generation == row["generation"])).first()


def _tenant(connection: Connection, event: Request) -> Answer:
    tenant = str(event.get("tenant") or "")
    try:
        # As text: an amount of 16 digits would not survive Lua's JSON.
        policy = Policy.model_validate_json(str(event.get("policy") or "{}"))
    except (ValidationError, ValueError, TypeError) as error:
        return {"status": "invalid", "tenant": tenant, "reason": _reason(error)}
    if ignored := policy.not_yet():
        return {"status": "invalid", "tenant": tenant, "reason": "; ".join(ignored)}
    if not _TENANT.fullmatch(tenant):
        return {"status": "invalid", "tenant": tenant, "reason": "a tenant's id is 2 to 63 of a-z, 0-9 and -, not beginning with -"}
    if connection.execute(select(t.tenant.c.id).where(t.tenant.c.id == tenant)).first() is not None:
        return {"status": "duplicate", "tenant": tenant}
    create_tenant(connection, tenant, str(event.get("name") or tenant), policy, int(event["at"]), actor=str(event.get("by") or tenant))
    return {"status": "accepted", "tenant": tenant}


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())


def create_tenant(connection: Connection, tenant: str, name: str, policy: Policy, at: int, *, actor: str) -> None:
    """Store a tenant with the first version of its policy; one that exists stays as it is."""
    keep(connection, t.tenant, [{"id": tenant, "name": name, "status": "active", "currency": "EUR", "created_at": at}])
    keep(connection, t.policy, [{"tenant": tenant, "version": 1, "fields": policy.model_dump_json(), "at": at}])
    row = {"id": f"tenant.{tenant}", "at": at, "actor": actor, "action": "tenant.created", "tenant": tenant, "target": tenant}
    keep(connection, t.audit, [{**row, "data": policy.model_dump_json()}])


def policy_fields(connection: Connection) -> dict[str, dict[str, str]]:
    """Return, for every tenant, the fields of its Redis hash that its policy fixes; counters are not among them."""
    newest: dict[str, Any] = {}
    rows = select(t.policy.c.tenant, t.policy.c.version, t.policy.c.fields, t.tenant.c.status).join(
        t.tenant, t.tenant.c.id == t.policy.c.tenant
    )
    for row in connection.execute(rows.order_by(t.policy.c.version)):
        newest[row.tenant] = row
    return {tenant: _hash(row) for tenant, row in newest.items()}


def _hash(row: Any) -> dict[str, str]:
    policy = Policy.model_validate_json(row.fields)
    return {
        "limit_day": str(policy.limit_per_day_micros),
        "max_runs": str(policy.max_concurrent_runs),
        "max_running_nodes": "" if policy.max_running_nodes is None else str(policy.max_running_nodes),
        "weight": str(policy.weight),
        "status": str(row.status),
        "version": str(row.version),
    }
