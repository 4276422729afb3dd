"""All that a decision was made from, as one value that can be stored and read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cost.decision import Trigger
from cost.outlook import Basis, RunView, TenantView
from cost.plan import NodeCost, VariantCost


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that `decide` looks at. `solver` names what plans, with its version: another one may plan otherwise."""

    tenant: TenantView
    run: RunView
    trigger: Trigger
    policy_version: int
    solver: str

    def to_json(self) -> str:
        """Return canonical JSON: equal inputs are the same bytes, in whichever order the nodes were gathered."""
        run = {each.name: getattr(self.run, each.name) for each in fields(RunView)}
        run["pending"] = [_row(node) for node in sorted(self.run.pending, key=lambda node: node.id)]
        run["current"] = dict(self.run.current)
        document = {
            "tenant": {each.name: getattr(self.tenant, each.name) for each in fields(TenantView)},
            "run": run,
            "trigger": self.trigger,
            "policy_version": self.policy_version,
            "solver": self.solver,
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Inputs:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
        document: dict[str, Any] = json.loads(text)
        run, tenant = dict(document["run"]), dict(document["tenant"])
        run["pending"] = tuple(_node(row) for row in run["pending"])
        run["basis"] = None if run["basis"] is None else Basis(*run["basis"])
        tenant["levels"], tenant["basis"] = tuple(tenant["levels"]), Basis(*tenant["basis"])
        return cls(TenantView(**tenant), RunView(**run), document["trigger"], document["policy_version"], document["solver"])

    def digest(self) -> str:
        """Return the SHA-256 of the JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _row(node: NodeCost) -> dict[str, Any]:
    row: dict[str, Any] = {"id": node.id, "estimate": node.estimate_micros, "value": node.value}
    said: Mapping[str, Any] = {
        "required": node.required,
        "fed": node.fed,
        "max_cost": node.max_cost,
        "variants": [list(each) for each in node.variants],
        "children": list(node.children),
        "needs": list(node.needs),
    }
    return row | {name: value for name, value in said.items() if value not in (False, None, [])}


def _node(row: Mapping[str, Any]) -> NodeCost:
    return NodeCost(
        row["id"],
        row.get("required", False),
        row["value"],
        row["estimate"],
        row.get("max_cost"),
        tuple(VariantCost(*each) for each in row.get("variants", ())),
        tuple(row.get("children", ())),
        tuple(row.get("needs", ())),
        row.get("fed", False),
    )
