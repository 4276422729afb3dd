"""What pages have done to runs: cancel, rerun, pause, resume, approve; by the client's own calls, which leave their lines in the audit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.client import Client
from orchestrator.web.page import UNREACHABLE, Act
from tenancy.errors import HeadgateError

RUNS_MAX = 50
"""Runs in one request; pages send more in pieces."""
REASON_MAX = 500
RUN_ID = re.compile(r"[0-9a-z]{26}")


class RunsAct(Act):
    """POST /runs/cancel, rerun, pause, resume or approve: {runs: [id, ..], reason} -> {done: [{run, ok, said}, ..]}."""

    what = "act on runs"

    def acting(self, asked: Mapping[str, Any], *path: str) -> Callable[[], Any]:
        """Return what does it to each run in turn; one that refuses does not keep the others from it."""
        runs = asked.get("runs")
        if (
            not isinstance(runs, list)
            or not 0 < len(runs) <= RUNS_MAX
            or not all(isinstance(run, str) and RUN_ID.fullmatch(run) for run in runs)
        ):
            raise ValueError(f"name 1 to {RUNS_MAX} runs by their ids")
        reason, client, who, verb = reason_of(asked), self.application.client, self.who(), path[0]
        return lambda: {"done": [_tried(client, verb, run, reason, who) for run in runs]}


def reason_of(asked: Mapping[str, Any]) -> str:
    """Return the reason that goes on record. Raises ValueError."""
    reason = asked.get("reason") or "from the console"
    if not isinstance(reason, str) or len(reason) > REASON_MAX:
        raise ValueError(f"a reason is a text of at most {REASON_MAX} characters")
    return reason


def _tried(client: Client, verb: str, run: str, reason: str, who: str) -> dict[str, Any]:
    try:
        said = _do(client, verb, run, reason, who)
    except HeadgateError as error:
        return {"run": run, "ok": False, "said": str(error)}
    except UNREACHABLE:
        return {"run": run, "ok": False, "said": "Redis or the database does not answer; try again when it is back"}
    return {"run": run, "ok": True, "said": said}


def _do(client: Client, verb: str, run: str, reason: str, who: str) -> str:
    match verb:
        case "cancel":
            return "cancelled" if client.cancel(run, reason=reason, by=who) else "it had ended before"
        case "rerun":
            return f"generation {client.rerun(run, reason=reason, by=who).generation} runs what had not succeeded"
        case "approve":
            return f"generation {client.approve(run, reason=reason, by=who).generation} goes on"
        case "pause":
            return "paused" if client.pause(f"run:{run}", reason=reason, by=who) else "it was paused before"
        case _:
            return "resumed" if client.resume(f"run:{run}", reason=reason, by=who) else "it was not paused"
