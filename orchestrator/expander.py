"""The expander: reads what a map goes over, and gathers what its items returned; the half of an expansion that asks Redis and the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator import keys
from orchestrator.expansion import Expansion, item_id, items_of, listed
from orchestrator.graph.references import MISSING
from orchestrator.kernel import Kernel
from orchestrator.patience import patiently

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

    def item(self, spec: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """Return the spec of the map that an item belongs to, and the item."""
        text = self._read("spec", spec["of"])
        item = self.kernel.results.decode(f"@{spec['at']}") if "at" in spec else spec["item"]
        return dict(json.loads(text)), item

    def gather(self) -> Any:
        """Return what the node became came to: the results of its items in their order; items without a result are left out."""
        found: list[Any] = []
        count = int(json.loads(self._read("ctl", self.node))["gathers"])
        for first in range(0, count, AT_ONCE):
            ids = [item_id(self.node, index) for index in range(first, min(first + AT_ONCE, count))]
            results = self.kernel.read_results(self.run_id, self.generation, ids, for_s=self.patience_s)
            found += [result for id_ in ids if (result := results.get(id_, MISSING)) is not MISSING]
        return found

    def _read(self, part: keys.Part, node: str) -> str:
        key = keys.of_run(part, f"{self.run_id}.{self.generation}")
        return str(patiently(lambda: self.kernel.link.read("HGET", key, node), for_s=self.patience_s))
