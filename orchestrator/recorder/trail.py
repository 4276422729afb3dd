"""The line of the audit that a request leaves: who asked for what, why, and what it changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from orchestrator.store import tables as t


def leave_trail(
    connection: Connection, event: Mapping[str, Any], name: str, action: str, target: str, said: Mapping[str, Any], *, tenant: str | None
) -> None:
    """Put a line on record. `name` is its id, which begins or ends with that of the request; the reason is added to what is said."""
    row = {"id": name, "at": int(event["at"]), "actor": str(event.get("by") or ""), "action": action, "tenant": tenant, "target": target}
    connection.execute(insert(t.audit), {**row, "data": json.dumps({**said, "reason": str(event.get("reason") or "")})})
