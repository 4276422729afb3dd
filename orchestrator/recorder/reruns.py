"""Requests for another generation of a run that has ended: what it adopts, decided from the record."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from orchestrator.graph import Graph
from orchestrator.store import tables as t

from .projection import amount
from .tenants import Answer, Request

WAYS = ("failed", "from", "node")
"""What runs again: what has no success; some nodes with what depends on them; some nodes alone. The latter two with what has no success."""

_KEPT = ("run_id", "tenant", "graph_name", "digest", "spec", "priority", "labels", "learned", "strict", "full")
"""What a generation has from the one before; the run's key stays with the first."""


def decide_rerun(connection: Connection, event: Request) -> Answer:
    """Return the answer to a request for the next generation, storing it.

    `status` is accepted (with `gen`, and how many nodes are `adopted` and run `again`), unknown_run, live (`gen` is not over),
    refused (it never began), suspended (`standing` says whether suspended or closed), approval (it was terminated by cost, and nobody
    approves), unneeded (somebody approves, and it was not), approved (`gen` is what an approval of generation `of` has opened),
    unknown_node (`nodes`), nothing (all of it succeeded) or invalid, with `reason`.
    """
    try:
        return _decide(connection, event)
    except (KeyError, ValueError, TypeError, AttributeError, zlib.error) as error:
        return {"status": "invalid", "run": event.get("run"), "reason": str(error) or type(error).__name__}


def _decide(connection: Connection, event: Request) -> Answer:
    run_id, what = str(event["run"]), str(event.get("what") or "failed")
    nodes = [str(node) for node in json.loads(str(event.get("nodes") or "[]"))]
    newest = select(t.run).where(t.run.c.run_id == run_id).order_by(t.run.c.generation.desc()).limit(1)
    found = connection.execute(newest).mappings().first()
    if found is None or found["spec"] is None:
        return {"status": "unknown_run", "run": run_id}
    before = dict(found)
    told = {"run": run_id, "gen": before["generation"]}
    if what not in WAYS or (what == "failed") == bool(nodes):
        return {"status": "invalid", **told, "reason": "name nodes for `from` and `node`, and none for `failed`"}
    approval = int(event.get("approval") or 0)
    if approval and before["generation"] > int(event.get("of") or before["generation"]):
        return {"status": "approved", **told}
    if before["status"] == "refused" and before["generation"] == 1:
        return {"status": "refused", **told}
    if before["status"] not in ("ended", "refused"):
        return {"status": "live", **told}
    if before["outcome"] == "terminated_by_cost" and not approval:
        return {"status": "approval", **told}
    # What an approval opened and admission refused is approved again by the next.
    if approval and before["outcome"] != "terminated_by_cost" and before["status"] != "refused":
        return {"status": "unneeded", **told, "outcome": before["outcome"]}
    standing = connection.execute(select(t.tenant.c.status).where(t.tenant.c.id == before["tenant"])).scalar()
    if standing != "active":
        return {"status": "suspended", **told, "standing": standing}
    graph = Graph.model_validate_json(zlib.decompress(before["spec"]))
    known = {*graph.by_id, *(row.node_id for row in connection.execute(select(t.node.c.node_id).where(_of(before))))}
    if unknown := [node for node in nodes if node not in known]:
        return {"status": "unknown_node", **told, "nodes": unknown[:5]}
    adopts = adopted(graph, _successes(connection, before), nodes, alone=what == "node")
    gone = {str(node) for node in json.loads(str(event.get("gone") or "[]"))}
    for node in wanted_again(graph, adopts.keys(), gone) if gone else ():
        del adopts[node]
    again_count = sum(node not in adopts for node in graph.by_id)
    if not again_count:
        return {"status": "nothing", **told}
    _store(connection, before, event, adopts)
    _note(connection, before, event, {"what": what, "nodes": nodes[:100], "adopted": len(adopts), "again": again_count})
    return {"status": "accepted", "run": run_id, "gen": before["generation"] + 1, "adopted": len(adopts), "again": again_count}


def adopted(graph: Graph, successes: Mapping[str, int], again: Sequence[str], *, alone: bool) -> dict[str, int]:
    """Return which successes the next generation adopts. again: nodes that run again, items of maps too; alone: not what depends on them.

    A map some of whose items have no success runs again, and adopts the others as soon as it becomes them: so nothing is repeated. What a
    node became otherwise is not known before it runs again.
    """
    parents = graph.parents()
    reopened = {owner for node in again if node not in graph.by_id and (owner := _owner(graph, node)) is not None}
    anew = {node for node in again if node in graph.by_id}
    if not alone:
        anew = below(parents, anew) | (below(parents, reopened) - reopened)
    found = {node: of for node, of in successes.items() if node in graph.by_id and node not in anew | reopened}
    for node, of in successes.items():
        owner = None if node in graph.by_id or node in again else _owner(graph, node)
        if owner is not None and owner not in found and owner not in anew and graph.by_id[owner].map is not None:
            found[node] = of
    return found


def _owner(graph: Graph, node: str) -> str | None:
    """Return the node of the graph that became `node`, None where there is none."""
    while node and node not in graph.by_id:
        node = node.rpartition(".")[0]
    return node or None


def below(parents: Mapping[str, Sequence[str]], nodes: Collection[str]) -> set[str]:
    """Return `nodes` and all that depends on them."""
    children: dict[str, list[str]] = {}
    for node, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(node)
    found, left = set(nodes), list(nodes)
    while left:
        for child in children.get(left.pop(), ()):
            if child not in found:
                found.add(child)
                left.append(child)
    return found


def wanted_again(graph: Graph, adopted: Collection[str], gone: Collection[str]) -> set[str]:
    """Return the adopted nodes that run again because their result is gone and wanted: by a node that runs, or as the graph's own."""
    inner = {parent for node in graph.nodes for parent in node.parents()}
    found = {node.id for node in graph.nodes if node.id in adopted and node.id in gone and node.id not in inner}
    left = [*found, *(node.id for node in graph.nodes if node.id not in adopted)]
    while left:
        for wanted in graph.by_id[left.pop()].reads():
            if wanted in adopted and wanted in gone and wanted not in found:
                found.add(wanted)
                left.append(wanted)
    items = {node: _owner(graph, node) for node in adopted if node not in graph.by_id}
    # An item of a list that is made anew may be another one.
    return found | {item for item, owner in items.items() if item in gone or (owner and not found.isdisjoint(graph.by_id[owner].reads()))}


def _successes(connection: Connection, before: Mapping[str, Any]) -> dict[str, int]:
    """Return each success that the generation has, its own or adopted, and which generation ran it.

    What it was to adopt counts also where it ended too early to: refused, or cancelled while it was loaded.
    """
    succeeded = select(t.node.c.node_id, t.node.c.adopted).where(_of(before), t.node.c.outcome == "succeeded")
    own = {row.node_id: int(row.adopted or before["generation"]) for row in connection.execute(succeeded)}
    return {**json.loads(before["adopts"] or "{}"), **own}


def _of(run: Mapping[str, Any]) -> Any:
    return (t.node.c.run_id == run["run_id"]) & (t.node.c.generation == run["generation"])


def _store(connection: Connection, before: Mapping[str, Any], event: Request, adopts: Mapping[str, int]) -> None:
    budget = amount(event.get("budget"))
    row = {name: before[name] for name in _KEPT} | {
        "generation": before["generation"] + 1,
        "key": None,
        "status": "submitted",
        "submitted_at": int(event["at"]),
        "budget": before["budget"] if budget is None else budget,
        "cost_micros": 0,
        "adopts": json.dumps(dict(sorted(adopts.items())), separators=(",", ":")),
    }
    connection.execute(insert(t.run), row)


def _note(connection: Connection, before: Mapping[str, Any], event: Request, said: Mapping[str, Any]) -> None:
    row = {
        "id": f"{event['request']}.rerun",
        "at": int(event["at"]),
        "actor": str(event.get("by") or ""),
        "action": "run.approved" if event.get("approval") else "run.rerun",
        "tenant": before["tenant"],
        "target": before["run_id"],
        "data": json.dumps({**said, "generation": before["generation"] + 1, "reason": str(event.get("reason") or "")}),
    }
    connection.execute(insert(t.audit), row)
