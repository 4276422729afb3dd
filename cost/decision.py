"""A decision of the cost agent on one run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from cost.plan import PlanDown

Action = Literal["continue", "degrade", "restore", "terminate", "hold", "finish"]
"""What becomes of a run.

continue: nothing changes. degrade: pending nodes are given less, as the plan says. restore: they get back what the plan says, and a run
of which nothing more was to start goes on. terminate: what is pending is revoked; what runs finishes. hold: nothing starts until somebody
approves. finish: nothing starts while what runs finishes; if money has not appeared by then, the next decision is to terminate.
"""

Trigger = Literal["beat", "admission", "gate", "level", "manual"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a run, and why.

    `plan` has a choice for each pending node, and as modifications what differs from the choices of now. `left` is what its hold is to keep
    for the pending nodes (micros), if it degrades or restores.
    """

    action: Action
    reason: str
    flags: tuple[str, ...]
    projected: int
    confidence_permille: int
    concurrency_percent: int
    plan: PlanDown | None = None
    left: int = 0

    def modifications(self) -> list[dict[str, Any]]:
        """What the plan changes, as events carry it."""
        found = self.plan.modifications if self.plan else ()
        return [
            {"type": m.type, "node": m.node, "change": m.change, "reason": m.reason, "saving": str(m.estimated_saving_micros)}
            for m in found
        ]

    def to_json(self) -> str:
        """Return the decision as canonical JSON: the same decision is the same bytes."""
        plan = self.plan
        fields = {
            "action": self.action,
            "reason": self.reason,
            "flags": list(self.flags),
            "projected": self.projected,
            "confidence_permille": self.confidence_permille,
            "concurrency_percent": self.concurrency_percent,
            "left": self.left,
            "plan": None
            if plan is None
            else {
                "cost_micros": plan.cost_micros,
                "value": plan.value,
                "fits": plan.fits,
                "exact": plan.exact,
                "bound": plan.bound,
                "modifications": self.modifications(),
            },
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
