"""A recorded run with what its nodes became while it went on: the same list gives the same nodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.expansion import Expansion, items_of, listed
from orchestrator.graph import Graph
from orchestrator.graph.references import references
from orchestrator.rebuild import Loaded, LoadRow, Recorded
from orchestrator.settings import Settings
from orchestrator.splice import LIMITS, spliced
from tenancy.errors import HeadgateError
from tenancy.priorities import Priority

GROWN = ("expects", "map", "when", "least")
"""What the control of a node has until it becomes others."""


def regrown(loaded: Loaded, recorded: Recorded, settings: Settings, read: Callable[[str], Any], keep: Callable[[str, str], str]) -> Loaded:
    """Return what was loaded with the nodes that others became, as far as the record says that they had come.

    read: gives the value of a recorded result. keep: stands for the JSON of an item in a row, given a name. Raises ValueError where the
    record does not say what a node became.
    """
    if not recorded.expanded:
        return loaded
    rows = {row.node: row for row in loaded.nodes}
    fragments, made = dict(loaded.fragments), dict[str, int]()
    found: dict[str, Expansion] = {}
    becomes = json.loads(recorded.run["becomes"] or "{}")
    for event in recorded.expanded:
        node = str(event["node"])
        if node not in found:
            found[node] = _expansion(rows, event, recorded, settings, read, keep)
            rows[node] = _gathering(rows[node], event)
        made[node] = int(event["first"]) + int(event["count"])
        for row in found[node].rows[int(event["first"]) : made[node]]:
            own = row.fragment.startswith("{")
            known = {"source": becomes[row.node]} if row.node in becomes else {}
            ctl = json.dumps({**json.loads(row.ctl), **known}, separators=(",", ":")) if known else row.ctl
            rows[row.node] = LoadRow(row.node, row.wait, ctl, row.spec, row.verdict, row.node if own else row.fragment)
            if own:
                fragments[row.node] = row.fragment
            else:
                fragments |= found[node].carried([row])
    grown = rows.keys() - {row.node for row in loaded.nodes}
    return replace(loaded, nodes=list(rows.values()), fragments=fragments, made=made, grown=grown)


def _expansion(
    rows: Mapping[str, LoadRow],
    event: Mapping[str, Any],
    recorded: Recorded,
    settings: Settings,
    read: Callable[[str], Any],
    keep: Callable[[str, str], str],
) -> Expansion:
    row = rows[str(event["node"])]
    spec = json.loads(row.spec)
    if "source" in event:
        spec = json.loads(rows[spec["of"]].spec) if "of" in spec else spec
        return _splice(row, spec, event, recorded, settings, read)
    mapped = spec["map"]["list"]
    ended = {reference.node: recorded.nodes.get(reference.node, {}) for reference in references({"map": mapped})}
    try:
        results = {node: read(of["result"]) for node, of in ended.items() if of.get("outcome") == "succeeded"}
        items = listed(row.node, mapped, spec["map"]["most"], results)
        verdict = recorded.nodes.get(row.node, {}).get("verdict") or row.verdict
        found = items_of(row.node, spec, items, keep, verdict)
    except HeadgateError as error:
        raise ValueError(f"what node {row.node} became cannot be told: {error}") from error
    if len(found.rows) != int(event["of"]):
        raise ValueError(f"node {row.node} became {event['of']} nodes, and what it goes over gives {len(found.rows)}")
    return found


def _splice(
    row: LoadRow, spec: Mapping[str, Any], event: Mapping[str, Any], recorded: Recorded, settings: Settings, read: Callable[[str], Any]
) -> Expansion:
    source = str(event["source"])
    try:
        graph = Graph.parse(read(source), LIMITS)
    except HeadgateError as error:
        raise ValueError(f"what node {row.node} became cannot be told: {error}") from error
    strict, depth = bool(spec.get("strict")), int(spec.get("depth", 0)) + 1
    required = bool(json.loads(row.ctl)["required"])
    return spliced(
        row.node, graph, settings, Priority.parse(recorded.run["priority"]), required=required, strict=strict, depth=depth, source=source
    )


def _gathering(row: LoadRow, event: Mapping[str, Any]) -> LoadRow:
    """Return the row of a node that became others, as the script `expand` leaves it."""
    ctl = {name: said for name, said in json.loads(row.ctl).items() if name not in GROWN}
    ctl |= {"floor": "0", **{name: event[name] for name in ("rule", "gathers", "of", "source") if name in event}}
    if isinstance(event["rule"], int):
        ctl["least"] = event["rule"]
    return row._replace(wait=int(event["gathers"]), ctl=json.dumps(ctl, separators=(",", ":")))
