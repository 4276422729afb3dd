"""Requests about reports: the first one about a scope and period is kept, with who is to be told of it; another one finds it there."""

from __future__ import annotations

import json
import zlib
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from orchestrator.notify.notice import report_notices
from orchestrator.store import tables as t
from orchestrator.store.position import Position
from orchestrator.store.report_rows import policy_at
from orchestrator.store.writer import keep
from tenancy.errors import Unknown

Request = dict[str, Any]
Answer = dict[str, Any]

KINDS = ("day", "month")


def decide_report(connection: Connection, event: Request, payload: bytes | None) -> Answer:
    """Return the answer to a report that somebody made, keeping it unless there is one: `accepted`, `exists`, `lost` or `invalid`."""
    try:
        scope, kind, period, at = str(event["scope"]), str(event["kind"]), str(event["period"]), int(event["at"])
        position = Position.parse(str(event["position"]))
        name = f"{scope}|{period}"
        if kind not in KINDS or not scope or not period:
            raise ValueError(f"{scope!r}, {kind!r} and {period!r} name no report")
        if connection.execute(select(t.report.c.id).where(t.report.c.id == name)).first() is not None:
            return {"status": "exists"}
        if payload is None:
            return {"status": "lost"}
        body = json.loads(payload)
        row = {"id": name, "scope": scope, "kind": kind, "period": period, "made_at": at, "epoch": position.epoch, "seq": position.seq}
        # Whatever does not fit shows before anything is stored: the transaction is that of the whole batch.
        notices = report_notices(name, body, at, _channels(connection, scope, at))
        connection.execute(insert(t.report), row | {"body": zlib.compress(payload)})
        keep(connection, t.notice, notices)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        return {"status": "invalid", "reason": str(error)}
    return {"status": "accepted"}


def _channels(connection: Connection, scope: str, at: int) -> tuple[str, ...]:
    """Return who is told of a report: of the platform's the hook; of a tenant's, where its policy says so, its webhook and the hook."""
    kind, _, tenant = scope.partition(":")
    if kind != "tenant":
        return ("hook",)
    try:
        policy = policy_at(connection, tenant, at)
    except Unknown:
        return ()
    return ("hook", "webhook") if policy.webhook_reports and policy.webhook else ("hook",) if policy.webhook_reports else ()
