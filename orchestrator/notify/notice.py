"""A notice, for one channel: of a level that was entered, a decision of the cost agent, or a report; and when it is tried again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

CHANNELS: Final = ("log", "hook", "webhook")

DELAY_MS, DELAY_MAX_MS = 5_000, 3_600_000
"""Before the second try, and before any; it doubles from one to the next."""

PATIENCE_MS: Final = 24 * 3_600_000
"""What could not be delivered for so long is given up."""

ERROR_CHARS_MAX: Final = 300


@dataclass(frozen=True)
class Notice:
    """What is to be delivered by one channel.

    id: the key and the channel. key: tenant, period and level, or tenant and decision, of which there is one notification. body: JSON, sent
    byte for byte. tries: how many there were. created_ms: when the level was entered, or the decision made.
    """

    id: str
    key: str
    channel: str
    tenant: str
    body: str
    tries: int
    created_ms: int
    due_ms: int

    @property
    def payload(self) -> dict[str, Any]:
        """The body as a dictionary."""
        return dict(json.loads(self.body))

    def next_due(self, now_ms: int) -> int:
        """Return when to try again if the next try fails, ms."""
        return now_ms + min(DELAY_MAX_MS, DELAY_MS << min(self.tries, 20))

    def is_over(self, now_ms: int) -> bool:
        """Whether it was tried for as long as there is patience for."""
        return now_ms - self.created_ms >= PATIENCE_MS

    def sentence(self) -> str:
        """What it says, for a person."""
        said = self.payload
        if said["event"] == "decision.made":
            would = "would " if said["observed"] else ""
            what = f"{would}{said['action']} run {said['run']} of tenant {said['tenant']}"
            return f"the cost agent: {what}, {said['changes']} changes that save {said['saving_micros']} micros: {said['reason']}"
        if said["event"] == "report.made":
            return f"the report of {said['tenant'] or 'the platform'} about {said['period']} was made, as of {said['position']}"
        amounts = f"{said['committed_micros']} of {said['limit_micros']} micros committed ({said['rate_ppm']} ppm)"
        return f"tenant {said['tenant']} is at {said['level']} of {said['period']}: {amounts}, by {said['cause']}"


def notice_rows(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table `notice` that a `level.entered` makes; those of a level's second entry have the ids of the first's."""
    tenant, period, level = (str(event[name]) for name in ("tenant", "period", "level"))
    key = f"{tenant}.{period}.{level}"
    at = int(event["at"])
    body = {
        "key": key,
        "event": "level.entered",
        "tenant": tenant,
        "period": period,
        "level": level,
        "entry": int(event["entry"]),
        "rate_ppm": int(event["rate_ppm"]),
        "committed_micros": int(event["committed"]),
        "limit_micros": int(event["limit"]),
        "cause": str(event["cause"]),
        "at": at,
    }
    return _rows(body)


def decision_notices(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that a decision makes, by its own row: also of one that is only observed, and none of one to go on as before."""
    if row["action"] == "continue":
        return []
    plan = json.loads(row["plan"])
    key = f"{row['tenant']}.{row['id']}"
    body = {
        "key": key,
        "event": "decision.made",
        "tenant": row["tenant"],
        "run": row["run_id"],
        "generation": row["generation"],
        "decision": row["id"],
        "trigger": row["trigger"],
        "action": row["action"],
        "reason": row["reason"],
        "flags": json.loads(row["flags"]),
        "changes": len(plan),
        "saving_micros": sum(int(change["saving"]) for change in plan),
        "observed": bool(row["observed"]),
        "cause": row["cause"],
        "at": row["at"],
    }
    return _rows(body)


def report_notices(name: str, report: Mapping[str, Any], at: int, channels: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rows that a report makes, `name` being its id; the whole of it is told, but for what only the next report needs."""
    body = {
        "key": _report_key(name),
        "event": "report.made",
        "tenant": str(report.get("tenant_id") or ""),
        "period": report["period"],
        "position": report["position"],
        "at": at,
        "report": {field: value for field, value in report.items() if field not in ("stated", "worker_ms")},
    }
    return _rows(body, channels)


def report_notice_id(name: str, channel: str) -> str:
    """Return the id of the notice that tells a channel of a report, `name` being that one's id."""
    return f"{_report_key(name)}.{channel}"


def _report_key(name: str) -> str:
    return f"report.{name}"


def _rows(body: Mapping[str, Any], channels: Iterable[str] = CHANNELS) -> list[dict[str, Any]]:
    key, at = body["key"], body["at"]
    of_all = {
        "key": key,
        "tenant": body["tenant"],
        "body": json.dumps(body),
        "at": at,
        "state": "pending",
        "tries": 0,
        "due_at": at,
        "error": "",
    }
    return [{"id": f"{key}.{channel}", "channel": channel, **of_all} for channel in channels]
