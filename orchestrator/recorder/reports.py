"""Requests about reports: the first one about a scope and period is kept, with who is to be told of it; another one finds it there."""

from __future__ import annotations

import json
import zlib
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from cost.period import MS_PER_DAY
from orchestrator.notify.notice import CHANNELS, report_notice_id, report_notices
from orchestrator.settings import REPORTS_KEPT_DAYS_MIN
from orchestrator.store import tables as t
from orchestrator.store.position import Position
from orchestrator.store.report_rows import policy_at
from orchestrator.store.writer import keep
from tenancy.errors import Unknown

Request = dict[str, Any]
Answer = dict[str, Any]

KINDS = ("day", "month")

FORGOTTEN_AT_ONCE = 200
"""Old reports that go when a new one is kept: more than come, so that they end, and few enough that nothing waits for it."""


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
        before = min(int(event.get("forget") or 0), at - REPORTS_KEPT_DAYS_MIN * MS_PER_DAY)
        connection.execute(insert(t.report), row | {"body": zlib.compress(payload)})
        keep(connection, t.notice, notices)
        _forget(connection, before)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        return {"status": "invalid", "reason": str(error)}
    return {"status": "accepted"}


def _forget(connection: Connection, before_ms: int) -> None:
    """Let go of reports that were made before a moment, the oldest first, and of what was sent of them."""
    oldest = select(t.report.c.id).where(t.report.c.made_at < before_ms).order_by(t.report.c.made_at).limit(FORGOTTEN_AT_ONCE)
    if found := list(connection.execute(oldest).scalars()):
        connection.execute(delete(t.report).where(t.report.c.id.in_(found)))
        told = [report_notice_id(name, channel) for name in found for channel in CHANNELS]
        connection.execute(delete(t.notice).where(t.notice.c.id.in_(told)))


def _channels(connection: Connection, scope: str, at: int) -> tuple[str, ...]:
    """Return who is told of a report: hook and webhook, of the platform's always, of a tenant's where its policy says so."""
    kind, _, tenant = scope.partition(":")
    if kind != "tenant":
        return ("hook", "webhook")  # what is not set is dropped when it is delivered
    try:
        policy = policy_at(connection, tenant, at)
    except Unknown:
        return ()
    return ("hook", "webhook") if policy.webhook_reports and policy.webhook else ("hook",) if policy.webhook_reports else ()
