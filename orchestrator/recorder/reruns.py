"""Requests for another generation of a run that has ended: what it adopts, decided from the record."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from orchestrator.expansion import above
from orchestrator.graph import Graph
from orchestrator.store import tables as t
from orchestrator.store.expansions import returned

from .projection import amount
from .tenants import Answer, Request
from .trail import leave_trail

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
    gone = {str(node) for node in json.loads(str(event.get("gone") or "[]"))}
    adopts, becomes = adopted(graph, _successes(connection, before), nodes, _returned(connection, before), gone, alone=what == "node")
    again_count = sum(node not in adopts for node in graph.by_id)
    if not again_count:
        return {"status": "nothing", **told}
    _store(connection, before, event, adopts, becomes)
    _note(connection, before, event, {"what": what, "nodes": nodes[:100], "adopted": len(adopts), "again": again_count})
    return {"status": "accepted", "run": run_id, "gen": before["generation"] + 1, "adopted": len(adopts), "again": again_count}


def adopted(
    graph: Graph, successes: Mapping[str, int], again: Sequence[str], graphs: Mapping[str, str], gone: Collection[str] = (), *, alone: bool
) -> tuple[dict[str, int], dict[str, str]]:
    """Return which successes the next generation adopts, and which nodes become the graphs that they became, without running.

    again: nodes that run again, those that others became too; alone: not what depends on them. graphs: by node, what its task returned.
    gone: nodes whose result, or whose graph, is not kept any more.

    What became others, some of which have no success, becomes them again and adopts the rest: so nothing is repeated.
    """
    parents = graph.parents()
    reopened = {each for node in again if node not in graph.by_id for each in above(node)}
    anew = {node for node in again if node in graph.by_id}
    if not alone:
        anew = below(parents, anew) | (below(parents, reopened & graph.by_id.keys()) - reopened)
    found = {node: of for node, of in successes.items() if node in graph.by_id and node not in anew | reopened}
    becomes: dict[str, str] = {}
    # What depends on a node inside a graph that was returned is not looked up: all of that graph runs again.
    closed = set() if alone else {inside[0] for node in again if (inside := [each for each in above(node) if each in graphs])}

    def is_reached(node: str) -> bool:
        """Whether the generation comes to the node that this was, by what it still knows."""
        owner = _owner(graph, node)
        if owner is None or owner in found or owner in anew or not closed.union(again).isdisjoint(above(node)):
            return False
        return all(each in becomes for each in above(node) if each in graphs) and (graph.by_id[owner].map is not None or owner in becomes)

    for node in sorted(graphs, key=len):
        fresh = node not in found and node not in anew if node in graph.by_id else node not in again and is_reached(node)
        if fresh and node not in gone and (node not in successes or node in reopened):
            becomes[node] = graphs[node]
    found |= {
        node: of for node, of in successes.items() if node not in graph.by_id and node not in reopened.union(again) and is_reached(node)
    }
    rerun = wanted_again(graph, found.keys(), gone) if gone else set()
    stale = {node for node in becomes if not rerun.isdisjoint(graph.by_id[_owner(graph, node) or node].reads())}
    return (
        {node: of for node, of in found.items() if node not in rerun},
        {node: source for node, source in becomes.items() if node not in stale},
    )


def _owner(graph: Graph, node: str) -> str | None:
    """Return the node of the graph that became `node`, None where there is none."""
    while node and node not in graph.by_id:
        node = node.rpartition(".")[0]
    return node or None


def below(parents: Mapping[str, Sequence[str]], nodes: Collection[str]) -> set[str]:
    """Return `nodes` and all that depends on them."""
    children: dict[str, list[str]] = {}
    for node, waits_for in parents.items():
        for parent in waits_for:
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


def _returned(connection: Connection, before: Mapping[str, Any]) -> dict[str, str]:
    return returned(connection, [before["run_id"]]).get((before["run_id"], before["generation"]), {})


def _of(run: Mapping[str, Any]) -> Any:
    return (t.node.c.run_id == run["run_id"]) & (t.node.c.generation == run["generation"])


def _store(
    connection: Connection, before: Mapping[str, Any], event: Request, adopts: Mapping[str, int], becomes: Mapping[str, str]
) -> None:
    budget = amount(event.get("budget"))
    row = {name: before[name] for name in _KEPT} | {
        "generation": before["generation"] + 1,
        "key": None,
        "status": "submitted",
        "submitted_at": int(event["at"]),
        "budget": before["budget"] if budget is None else budget,
        "cost_micros": 0,
        "adopts": json.dumps(dict(sorted(adopts.items())), separators=(",", ":")),
        "becomes": json.dumps(dict(sorted(becomes.items())), separators=(",", ":")) if becomes else None,
    }
    connection.execute(insert(t.run), row)


def _note(connection: Connection, before: Mapping[str, Any], event: Request, said: Mapping[str, Any]) -> None:
    action = "run.approved" if event.get("approval") else "run.rerun"
    data = {**said, "generation": before["generation"] + 1}
    leave_trail(connection, event, f"{event['request']}.rerun", action, before["run_id"], data, tenant=before["tenant"])
