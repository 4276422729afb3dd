"""Decisions of a log, decided again from the inputs that the log has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from orchestrator.launched import recorded_submission
from orchestrator.recorder.projection import parse_event
from orchestrator.settings import Settings
from orchestrator.store.changes import Row
from tenancy.errors import HeadgateError

from .run_log import RunLog


def decided_otherwise(log: RunLog, run: Row) -> Iterator[str]:
    """Yield a sentence for each decision that its inputs do not lead to.

    run: the row of the run by the log. A decision at admission follows from the graph, what its tasks were expected to cost, and the hold.
    """
    admissions = [
        (step.position, event)
        for step in log.steps
        if '"decision.applied"' in step.text and (event := parse_event(step.text)).get("t") == "decision.applied"
        if event.get("trigger") == "admission"
    ]
    if not admissions or log.spec is None:
        return
    try:
        down = recorded_submission(run, Settings.load()).planned_down(int(run["hold"] or 0))
    except (ValueError, KeyError, HeadgateError) as error:
        yield f"what was decided at admission cannot be decided again: {error}"
        return
    expected: list[dict[str, Any]] = [
        {"type": each.type, "node": each.node, "change": each.change, "reason": each.reason, "saving": str(each.estimated_saving_micros)}
        for each in (down.modifications if down else ())
    ]
    for position, event in admissions:
        found = [dict(each) for each in event.get("modifications") or ()]
        if _text(found) != _text(expected):
            yield f"event {position}: decides {_text(found)}, and its inputs lead to {_text(expected)}"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
