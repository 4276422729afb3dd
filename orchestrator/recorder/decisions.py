"""From the events of a decision of the cost agent to its row: made, and applied. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Event = Mapping[str, Any]

OLDER = 0
"""The number of a decision at admission that an older version took: it told only what it had applied."""


def decision_row(event: Event) -> dict[str, Any]:
    """Return the row of a `decision.made`. Raises KeyError, ValueError, TypeError where the event does not read as its type says."""
    name = str(event["decision"])
    return {
        **_begun(event, name, int(name.rpartition(".")[2])),
        "trigger": str(event["trigger"]),
        "action": str(event["action"]),
        "reason": str(event.get("reason") or ""),
        "flags": _text(event.get("flags") or []),
        "inputs_hash": str(event.get("inputs_hash") or ""),
        "inputs": str(event.get("inputs") or ""),
        "plan": _text(event.get("plan") or []),
        "projected": _number(event.get("projected")),
        "confidence_permille": _number(event.get("confidence_permille")),
        "concurrency_percent": _number(event.get("concurrency_percent")),
        "policy_version": _number(event.get("policy_version")),
        "observed": int(event.get("observed") or 0),
        "cause": str(event.get("cause") or ""),
        "applied_at": None,
        "applied": None,
    }


def applied_row(event: Event) -> dict[str, Any]:
    """Return what a `decision.applied` changes in the row of its decision."""
    done = _text(event.get("modifications") or [])
    return {"decided": str(event["decision"]), "to_applied_at": int(event["at"]), "to_applied": done}


def older_row(event: Event) -> dict[str, Any]:
    """Return the row of a `decision.applied` at admission that names no decision: what was applied is what was planned."""
    done = _text(event.get("modifications") or [])
    told = {**event, "trigger": event.get("trigger") or "admission", "action": "degrade", "plan": done, "reason": "the budget is short"}
    name = f"{event['run']}.{event['gen']}.{OLDER}"
    return decision_row({**told, "decision": name}) | {"applied_at": int(event["at"]), "applied": done}


def _begun(event: Event, name: str, number: int) -> dict[str, Any]:
    owned = {"tenant": str(event["tenant"]), "run_id": str(event["run"]), "generation": int(event["gen"])}
    return {"id": name, **owned, "number": number, "at": int(event["at"])}


def _number(value: Any) -> int | None:
    return None if value is None or value == "" else int(str(value))


def _text(value: Any) -> str:
    """Return JSON text: of what a script gave as text, that text byte for byte."""
    if isinstance(value, str):
        return value
    # An empty table of Lua's is an object in JSON; here it is an empty list.
    return json.dumps(value if value != {} else [], separators=(",", ":"), ensure_ascii=False)
