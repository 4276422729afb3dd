"""Joins: by which rule a node counts the outcomes of its parents, and what follows from that for its plan. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.graph import Graph
from orchestrator.graph.branches import gated, gates
from orchestrator.graph.fields import least_of

NOT_TAKEN: Final = "not taken: "
"""How the reason of a skipped node begins that was on a branch not taken: it neither degrades its run nor fails it."""

Rule = str | int
"""all_succeeded, all_done, or the n of at_least(n)."""


@dataclass(frozen=True, slots=True)
class Joins:
    """The nodes of a graph that count their parents one by one.

    rules: by node; all others are plain: due when all parents have passed. counted: those that Celery must not publish, maps among them.
    loose: nodes that may end before all of their parents have succeeded. pinned: optional nodes that no plan may give up, because too few
    successes would be left for an `at_least` behind them.
    """

    rules: Mapping[str, Rule]
    counted: frozenset[str]
    loose: frozenset[str]
    pinned: frozenset[str]

    @classmethod
    def of(cls, graph: Graph) -> Joins:
        """Return the joins of a valid graph."""
        ruled = frozenset(node.id for node in graph.nodes if node.when is not None or node.parents_join != "all_succeeded")
        counted = ruled | {node.id for node in graph.nodes if node.map is not None}
        loose = frozenset(node.id for node in graph.nodes if not node.required or node.parents_join != "all_succeeded")
        if not ruled:
            return cls({}, counted, loose, frozenset())
        parents = graph.parents()
        branching = gated(parents, gates(parents, [node.id for node in graph.nodes if node.when is not None]))
        rules: dict[str, Rule] = {
            node.id: least_of(node.parents_join) or node.parents_join
            for node in graph.nodes
            if (node.id in ruled or node.id in branching) and parents[node.id]
        }
        return cls(rules, counted, loose, frozenset(_pinned(graph, parents)))

    def next_of(self, children: Sequence[str]) -> dict[str, Any]:
        """Return what a node's control has of its children: plain ones in `next`, the others with their rules in `joins`."""
        joins = [[child, self.rules[child]] for child in children if child in self.rules]
        plain = [child for child in children if child not in self.rules]
        return {"next": plain, "joins": joins} if joins else {"next": plain}


def _pinned(graph: Graph, parents: Mapping[str, Sequence[str]]) -> Iterator[str]:
    by_id = graph.by_id
    for node in graph.nodes:
        if least := least_of(node.parents_join):
            optional = [parent for parent in parents[node.id] if not by_id[parent].required]
            yield from optional[: max(0, least - (len(parents[node.id]) - len(optional)))]
