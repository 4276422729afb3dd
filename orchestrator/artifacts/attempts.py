"""The attempts of a run, from its events: who executed what, from when to when, and how that ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LOST, UNFINISHED = "lost", "unfinished"


@dataclass
class Attempt:
    """One execution of a node; times in ms. `status` is its outcome, `lost` with its worker, or `unfinished`: no end on record."""

    worker_id: str
    node_id: str
    attempt: int
    started_ms: int
    completed_ms: int | None = None
    status: str = UNFINISHED
    error: Any = None


def attempts_of(events: Iterable[Mapping[str, Any]]) -> list[Attempt]:
    """Return the attempts that the events of a run tell of, in the order in which they began."""
    found: dict[tuple[str, int], Attempt] = {}
    for event in events:
        kind = event.get("t")
        if kind not in _ENDS and kind != "node.began":
            continue
        key = str(event["node"]), int(event.get("attempt") or 0)
        if kind == "node.began":
            found[key] = Attempt(str(event.get("inc") or ""), *key, int(event["at"]))
        elif (known := found.get(key)) is not None and known.completed_ms is None:
            status = _status(event)
            if status is not None:
                known.completed_ms, known.status, known.error = int(event["at"]), status, read_error(event.get("error"))
    return list(found.values())


def most_at_once(attempts: Iterable[Attempt]) -> int:
    """Return how many of them were running at the same moment, at most; one that ends when another begins is not beside it."""
    moments = [(each.started_ms, 1) for each in attempts] + [(each.completed_ms, -1) for each in attempts if each.completed_ms is not None]
    most = now = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


def read_error(text: Any) -> Any:
    """Return the error that an event or a row has as JSON text; None where there is none."""
    if not text or not isinstance(text, str):
        return text or None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _status(event: Mapping[str, Any]) -> str | None:
    if event["t"] == "node.lost":
        return LOST
    if event["t"] == "node.expanded":
        whole = int(event["first"]) + int(event["count"]) >= int(event["of"])
        return "succeeded" if whole else None
    return str(event["outcome"])


_ENDS = frozenset({"node.ended", "node.retry", "node.lost", "node.expanded"})
