"""The expander: reads what nodes become, and gathers what that came to; the half of an expansion that asks Redis and the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator import keys
from orchestrator.attempts import Fatal
from orchestrator.expansion import Expansion, NothingGathered, item_id, items_of, listed
from orchestrator.graph import Graph
from orchestrator.graph.references import MISSING
from orchestrator.kernel import Kernel
from orchestrator.patience import patiently
from orchestrator.registry import registry
from orchestrator.splice import LIMITS, checked, gathered, sinks, spliced
from tenancy import keys as transport
from tenancy.priorities import Priority

AT_ONCE: Final = 1_000
"""Results that are read at once."""


@dataclass(frozen=True)
class Expander:
    """For one node of a run. Raises Unavailable where Redis, or the store of results, stays away for `patience_s` seconds."""

    kernel: Kernel
    run_id: str
    generation: int
    node: str
    patience_s: float

    def items(self, spec: Mapping[str, Any], results: Mapping[str, Any], verdict: str) -> Expansion:
        """Return what a map becomes; large items are objects by then. results: of the nodes that it refers to. Raises NotMappable."""
        items = listed(self.node, spec["map"]["list"], spec["map"]["most"], results)
        return items_of(self.node, spec, items, self._keep, verdict)

    def _keep(self, name: str, text: str) -> str:
        return self.kernel.results.keep(f"{self.run_id}/{self.generation}/{name}.json", text)

    def owner(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Return a spec, or where it is an item's, that of its map."""
        return self.template(spec) if "of" in spec else spec

    def template(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return the spec of the map that an item belongs to."""
        return dict(json.loads(self._read("spec", spec["of"])))

    def item(self, spec: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """Return the spec of the map that an item belongs to, and the item."""
        item = self.kernel.results.decode(f"@{spec['at']}") if "at" in spec else spec["item"]
        return self.template(spec), item

    def splice(self, graph: Graph, spec: Mapping[str, Any], attempt: int) -> Expansion:
        """Return what the node becomes by a graph that its task returned, which is kept by then. Raises GraphInvalid."""
        served = patiently(lambda: self.kernel.link.read("HKEYS", transport.SERVES), for_s=self.patience_s)
        found = checked(self.node, graph, registry, {*served, *registry.names()}, int(spec.get("depth", 0)) + 1)
        return self._spliced(found, spec, self._keep(f"{self.node}.{attempt}.graph", found.canonical().decode()))

    def resplice(self, source: str, spec: Mapping[str, Any]) -> Expansion:
        """Return what the node is becoming since an earlier attempt."""
        return self._spliced(self._graph(source), spec, source)

    def _spliced(self, graph: Graph, spec: Mapping[str, Any], source: str) -> Expansion:
        key = keys.of_run("run", f"{self.run_id}.{self.generation}")
        priority = Priority.parse(int(patiently(lambda: self.kernel.link.read("HGET", key, "priority"), for_s=self.patience_s)))
        required = bool(json.loads(self._read("ctl", self.node))["required"])
        strict, depth = bool(spec.get("strict")), int(spec.get("depth", 0)) + 1
        return spliced(self.node, graph, self.kernel.settings, priority, required=required, strict=strict, depth=depth, source=source)

    def _graph(self, source: str) -> Graph:
        return Graph.parse(self.kernel.results.decode(source), LIMITS)

    def gather(self, source: str) -> Any:
        """Return what the node became came to; of a map the results of its items in their order, those without one left out.

        source: what says what it became, '' of a map. Raises NothingGathered, and Fatal where the run needs the node.
        """
        ctl = json.loads(self._read("ctl", self.node))
        if source:
            graph = self._graph(source)
            results = self.kernel.read_results(self.run_id, self.generation, sinks(graph), for_s=self.patience_s)
            try:
                return gathered(self.node, graph, results)
            except NothingGathered as nothing:
                if ctl["required"]:
                    raise Fatal(str(nothing)) from None
                raise
        found: list[Any] = []
        count = int(ctl["gathers"])
        for first in range(0, count, AT_ONCE):
            ids = [item_id(self.node, index) for index in range(first, min(first + AT_ONCE, count))]
            results = self.kernel.read_results(self.run_id, self.generation, ids, for_s=self.patience_s)
            found += [result for id_ in ids if (result := results.get(id_, MISSING)) is not MISSING]
        return found

    def _read(self, part: keys.Part, node: str) -> str:
        key = keys.of_run(part, f"{self.run_id}.{self.generation}")
        return str(patiently(lambda: self.kernel.link.read("HGET", key, node), for_s=self.patience_s))
