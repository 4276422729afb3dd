"""A run as its page has it: the drawing of its graph, the states of its nodes as columns, one node with everything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.drawing.layout import HEIGHT, WIDTH, lay_out
from orchestrator.graph.references import references
from orchestrator.redaction import redacted, redacted_text
from orchestrator.store.read import EventView, NodeView
from orchestrator.store.run_nodes import EntryView, UsageView

SHOWN_CHARS = 20_000
"""Of a result or a traceback; the command line has all of it."""

CODES = {
    "pending": "p",
    "due": "q",
    "running": "r",
    "succeeded": "s",
    "failed": "f",
    "timed_out": "t",
    "skipped": "k",
    "cancelled": "x",
    "upstream_failed": "u",
    "not_taken": "n",
}
"""The state of a node as one letter."""

NOT_TAKEN = "not taken: "


def spec_parents(nodes: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the parents of each node of a recorded graph; names that no node has are left out."""
    known = {str(node["id"]) for node in nodes}
    found = {}
    for node in nodes:
        asked = [reference.node for reference in references(node.get("params") or {})]
        for field in ("when", "map"):
            source = node.get(field)
            if isinstance(source, dict) and (parent := source.get("ref", source.get("$ref"))):
                asked.append(str(parent))
        found[str(node["id"])] = tuple(each for each in dict.fromkeys([*asked, *(node.get("after") or ())]) if each in known)
    return found


def drawing(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the nodes of a recorded graph and where they are drawn; boxes and edges name nodes and boxes by their indexes."""
    alike = {
        str(node["id"]): (node.get("task"), bool(node.get("required", True)), node.get("pool"), str(node.get("join"))) for node in nodes
    }
    laid = lay_out(spec_parents(nodes), alike)
    index = {str(node["id"]): at for at, node in enumerate(nodes)}
    tasks = sorted({str(node.get("task")) for node in nodes})
    number = {task: at for at, task in enumerate(tasks)}
    return {
        "ids": [str(node["id"]) for node in nodes],
        "tasks": tasks,
        "task": [number[str(node.get("task"))] for node in nodes],
        "optional": [at for at, node in enumerate(nodes) if not node.get("required", True)],
        "boxes": [[box.x, box.y, [index[node] for node in box.members]] for box in laid.boxes],
        "edges": [[edge.source, edge.target, *edge.bends] for edge in laid.edges],
        "width": laid.width,
        "height": laid.height,
        "box": [WIDTH, HEIGHT],
    }


def state_code(row: Mapping[str, Any]) -> str:
    """Return the letter of a node's state."""
    outcome = row["outcome"]
    if outcome == "skipped" and str(row["reason"] or "").startswith(NOT_TAKEN):
        return CODES["not_taken"]
    return CODES.get(outcome or row["state"] or "pending", "p")


def columns(ids: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the nodes as columns, those of the graph in its order and then what came later (`more`): times in ms, or None."""
    by_id = {str(row["node_id"]): row for row in rows}
    more = sorted(by_id.keys() - set(ids), key=_natural)
    found = [by_id.get(node) for node in (*ids, *more)]
    workers = sorted({str(row["worker"]) for row in found if row and row["worker"]})
    number = {worker: at for at, worker in enumerate(workers)}
    times = {name: [row[name] if row else None for row in found] for name in ("queued_at", "started_at", "finished_at")}
    return {
        "more": more,
        "states": "".join(state_code(row) if row else "p" for row in found),
        "workers": workers,
        "worker": [number.get(str(row["worker"]), -1) if row else -1 for row in found],
        "attempt": [(row["attempt"] or 0) if row else 0 for row in found],
        "cost": [row["cost_micros"] if row else 0 for row in found],
        "adopted": [at for at, row in enumerate(found) if row and row["adopted"]],
        "changed": [at for at, row in enumerate(found) if row and (row["decision"] or row["verdict"])],
        **times,
    }


def _natural(node: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in node.split(".")]


def attempts(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the attempts of a node as its events tell them: when, where, how each ended; times in epoch seconds."""
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        number = int(event.get("attempt") or 0)
        kind, at = event.get("t"), int(event.get("at") or 0) / 1000
        if kind == "node.began":
            found[number] = {"attempt": number, "worker": event.get("worker"), "began": at, "ended": None, "outcome": None, "error": None}
        elif number in found and kind in ("node.retry", "node.ended", "node.lost"):
            outcome = "lost" if kind == "node.lost" else event.get("outcome")
            found[number].update(ended=at, outcome=outcome, error=error_of(event.get("error")))
            if kind == "node.retry":
                found[number]["delay_s"] = int(event.get("delay_ms") or 0) / 1000
    return [found[number] for number in sorted(found)]


def error_of(error: Any) -> dict[str, Any] | None:
    """Return an error as pages show it: type, message, traceback."""
    value = error
    if isinstance(error, str):
        try:
            value = json.loads(error) if error else None
        except ValueError:
            value = {"message": error}
    if not value:
        return None
    if not isinstance(value, dict):
        value = {"message": str(value)}
    return {name: cut(redacted_text(str(redacted(value[name])))) for name in ("type", "message", "traceback") if value.get(name)}


def cut(text: str) -> str:
    """Return a text that is not too long to be shown."""
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}\n… {len(text) - SHOWN_CHARS} more characters"


def result_of(text: str | None) -> dict[str, Any] | None:
    """Return a result as pages show it: its JSON, or where the object is that has it."""
    if text is None:
        return None
    if text.startswith("@"):
        return {"object": text[1:]}
    try:
        return {"json": cut(json.dumps(redacted(json.loads(text)), indent=2, ensure_ascii=False))}
    except ValueError:
        return {"json": cut(text)}


def node_json(
    node: NodeView,
    spec: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    entries: Sequence[EntryView],
    usage: Sequence[UsageView],
) -> dict[str, Any]:
    """Return one node with everything that is known of it, secrets hidden."""
    same = ("id", "task", "required", "state", "outcome", "reason", "attempt", "fails", "lost", "worker", "verdict", "adopted")
    times = ("queued_at", "started_at", "finished_at", "cost_micros")
    shown = ("priority", "timeout_s", "attempts", "join", "when", "map", "pool", "labels", "value", "max_cost", "estimate", "after")
    return {
        **{name: getattr(node, name) for name in (*same, *times)},
        "cost": dict(node.cost),
        "params": cut(json.dumps(redacted(spec.get("params") or {}), indent=2, ensure_ascii=False)),
        "spec": {name: redacted(spec[name]) for name in shown if spec.get(name) not in (None, "", [], {})},
        "variants": [str(variant.get("name")) for variant in spec.get("variants") or ()],
        "error": error_of(node.error),
        "result": result_of(node.result),
        "tries": attempts(events),
        "entries": [
            {
                "attempt": e.attempt,
                "kind": e.kind,
                "category": e.category,
                "amount": e.amount,
                "by": e.by,
                "at": e.at,
                "prices": e.price_version,
            }
            for e in entries
        ],
        "usage": [{"attempt": each.attempt, "lines": each.lines, "prices": each.price_version} for each in usage],
    }


def event_json(event: EventView) -> dict[str, Any]:
    """Return an event with its secrets hidden, also those inside texts of JSON."""
    data = {}
    for name, value in event.data.items():
        if name in ("result", "error") and isinstance(value, str) and value[:1] in "{[":
            try:
                data[name] = cut(json.dumps(redacted(json.loads(value)), ensure_ascii=False))
                continue
            except ValueError:
                pass
        data[name] = cut(value) if isinstance(value, str) else redacted(value)
    return {"position": str(event.position), "at": event.at, "type": event.type, "data": data}
