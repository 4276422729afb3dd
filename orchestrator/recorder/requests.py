"""Requests to the record: durable submissions, and changes of tenants, prices and schedules, decided inside the recorder's transaction.

A request is an event; its answer is stored under the request's id, so a request that is sent twice or read twice
is answered the same.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from cost.money import check_micros
from orchestrator.store import tables as t
from tenancy.priorities import Priority

from .prices import decide_prices
from .projection import amount
from .pruning import decide_prune
from .reports import decide_report
from .reruns import decide_rerun
from .schedules import decide_schedule
from .tenants import Answer, Request, decide_tenant

ANSWER_KEPT_S = 60
"""How long an answer waits in Redis for who asked."""


def decide(connection: Connection, requests: list[Request], payloads: Mapping[str, bytes]) -> dict[str, Answer]:
    """Return an answer for each request, storing what the accepted ones ask for.

    `payloads` holds the graph, canonical JSON, of each submission and schedule whose graph still exists, and reports.
    The `status` of a submission's answer is accepted, duplicate, conflict, unknown_tenant, suspended (or closed:
    `standing` says which), lost (the graph is gone: submit again) or invalid.
    """
    answers: dict[str, Answer] = {}
    for event in requests:
        request = str(event.get("request") or "")
        if not request:
            continue
        stored = stored_answer(connection, request)
        if stored is None:
            if event["t"] == "request.submit":
                stored = _submit(connection, event, payloads.get(request))
            elif event["t"] == "request.rerun":
                stored = decide_rerun(connection, event)
            elif event["t"] == "request.report":
                stored = decide_report(connection, event, payloads.get(request))
            elif event["t"] == "request.prune":
                stored = decide_prune(connection, event)
            elif event["t"] == "request.schedule":
                stored = decide_schedule(connection, event, payloads.get(request))
            else:
                stored = (decide_prices if event["t"] == "request.prices" else decide_tenant)(connection, event)
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
        row = run_row(event)
    except (KeyError, ValueError, TypeError, AttributeError):
        return {"status": "invalid", "run": event.get("run")}
    standing = connection.execute(select(t.tenant.c.status).where(t.tenant.c.id == row["tenant"])).scalar()
    if standing is None:
        return {"status": "unknown_tenant", "run": row["run_id"]}
    if standing != "active":
        return {"status": "suspended", "run": row["run_id"], "standing": standing}
    taken = _taken(connection, row)
    if taken is not None:
        same = taken.digest == row["digest"] and taken.tenant == row["tenant"]
        return {"status": "duplicate" if same else "conflict", "run": taken.run_id}
    if payload is None:
        return {"status": "lost", "run": row["run_id"]}
    row["spec"] = zlib.compress(payload)
    connection.execute(insert(t.run), row)
    return {"status": "accepted", "run": row["run_id"]}


def run_row(event: Request) -> dict[str, Any]:
    """Return the row of the run that a submission asks for, without its graph. Raises KeyError, ValueError, TypeError, AttributeError."""
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
        "learned": _means(event.get("learned")),
        "strict": int(bool(event.get("strict"))),
        "full": int(bool(event.get("full"))),
        "trace": str(event["trace"]) if event.get("trace") else None,
    }


def _means(text: Any) -> str | None:
    """Return what a submission was estimated by, checked; it is what every later start of the run is estimated by."""
    if not text:
        return None
    means = {str(task): {str(name): check_micros(micros) for name, micros in cats.items()} for task, cats in json.loads(text).items()}
    return json.dumps(means, sort_keys=True)


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
