"""Splicing: a graph that a node's task returned takes its place in the run, as nodes `node.inner`. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from graphlib import TopologicalSorter
from typing import Any, Final

from orchestrator.compiler import encode_fragment
from orchestrator.expansion import Expansion, GrownRow, NothingGathered
from orchestrator.graph import Graph, Limits
from orchestrator.graph.nested import NESTED_MAX
from orchestrator.graph.scheduled import refuse_unscheduled
from orchestrator.registry import Registry
from orchestrator.settings import Settings
from orchestrator.submission import Submission
from tenancy.errors import GraphInvalid
from tenancy.priorities import Priority

LIMITS: Final = Limits(nodes=10_000)
"""What one splice may bring."""


def checked(node: str, graph: Graph, registry: Registry, served: Collection[str], depth: int) -> Graph:
    """Return a graph that the task of `node` returned as it is spliced in: resolved, and with ids under the node's.

    served: names of tasks that live workers have. depth: how deep it stands inside what was spliced in before it, from 1.

    Raises GraphInvalid.
    """
    if depth > NESTED_MAX:
        raise GraphInvalid((f"node {node!r}: it returned a graph, and graphs are spliced in at most {NESTED_MAX} deep; return a result",))
    said = {"max_parallel": graph.max_parallel, "on_failure": graph.on_failure if graph.on_failure != "finish" else None}
    if whole := [name for name, value in said.items() if value is not None]:
        raise GraphInvalid(tuple(f"graph: `{name}` is the whole run's; leave it out of a graph that is returned" for name in whole))
    nodes = graph.resolved(registry).spec()["nodes"]
    found = Graph.parse({"name": graph.name, "nodes": [{"id": node, "graph": {"nodes": nodes}}]}, LIMITS, registry=registry, served=served)
    refuse_unscheduled(found)
    return found


def spliced(
    node: str, graph: Graph, settings: Settings, priority: Priority, *, required: bool, strict: bool, depth: int, source: str
) -> Expansion:
    """Return the nodes of a graph that `checked` returned, children before their parents.

    priority: the run's. required: whether the run needs the node; if not, it needs none of these. source: stands for the graph.
    """
    submission = Submission.of(graph, settings, priority, strict=strict)
    children, by_id = submission.plan.children, {row[0]: row for rows in submission.rows({}) for row in rows}
    rows: list[GrownRow] = []
    for id_ in TopologicalSorter(children).static_order():
        _, wait, ctl, spec, verdict, index = by_id[id_]
        rows.append(
            GrownRow(id_, wait, _control(ctl, node, required, last=not children[id_]), _deep(spec, depth), verdict, f"{node}/{index}")
        )
    fragments = {f"{node}/{each.index}": encode_fragment(each, submission.info) for each in submission.plan.fragments}
    optional = {each.id for each in graph.nodes if not (required and each.required)}
    tasks = {each.id.removeprefix(f"{node}."): each.task for each in graph.nodes}
    return Expansion(node, rows, len(sinks(graph)), "all_succeeded", source, optional, tasks, fragments)


def gathered(node: str, graph: Graph, results: Mapping[str, Any]) -> Any:
    """Return what a graph that was spliced in came to: the result of its only sink, or those of several by the end of their ids.

    results: by node, of those that have one. Raises NothingGathered.
    """
    ends = sinks(graph)
    if len(ends) > 1:
        return {id_.removeprefix(f"{node}."): results[id_] for id_ in ends if id_ in results}
    if ends[0] not in results:
        raise NothingGathered(f"the graph that it returned ends in {ends[0]!r}, which has no result")
    return results[ends[0]]


def sinks(graph: Graph) -> list[str]:
    """Return the nodes that no other one waits for."""
    waited_for = {parent for node in graph.nodes for parent in node.parents()}
    return [node.id for node in graph.nodes if node.id not in waited_for]


def _control(text: str, node: str, required: bool, *, last: bool) -> str:
    ctl: dict[str, Any] = json.loads(text)
    if not required:
        ctl |= {name: "0" for name in ("floor", "expects") if name in ctl} | {"required": False}
    if last:
        ctl["joins"] = [*ctl.get("joins", ()), [node, "all_succeeded", 1]]
    return json.dumps(ctl, separators=(",", ":"), ensure_ascii=False)


def _deep(text: str, depth: int) -> str:
    return json.dumps({**json.loads(text), "depth": depth}, separators=(",", ":"), ensure_ascii=False)
