"""A decision as it is stored and told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cost.agent import Basis, Decision, Inputs
from orchestrator.kernel import Kernel
from orchestrator.objects import DECISION
from orchestrator.results import OBJECT_MARK

INLINE_BYTES: Final = 4_096
"""Inputs up to this many bytes are in the event; larger ones are an object, and the event has `@` and its name."""


@dataclass(frozen=True)
class Made:
    """The `number`-th decision about the run `rg`, what it was made from, and the execution or node that tripped it."""

    rg: str
    number: int
    inputs: Inputs
    decision: Decision
    cause: str = ""

    @property
    def name(self) -> str:
        """Its id, `{run}.{generation}.{n}`."""
        return f"{self.rg}.{self.number}"

    def mark(self, basis: Basis | Sequence[Any] | None) -> str:
        """What the next decision compares itself with; `basis` is that of the last verdict."""
        return _json({"action": self.decision.action, "flags": self.decision.flags, "basis": basis})

    def event(self, kernel: Kernel, tenant: str, basis: Basis | Sequence[Any] | None = None, kept: Sequence[str] = ()) -> str:
        """Return the event that tells of it; large inputs are written to an object first. Raises Unavailable."""
        run_id, _, generation = self.rg.rpartition(".")
        inputs, decision = self.inputs, self.decision
        text, digest = inputs.to_json(), inputs.digest()
        if len(text.encode()) > INLINE_BYTES:
            path = f"{run_id}/{generation}/{DECISION}{self.number}.{digest[:16]}.json"
            kernel.results.objects.write(path, text.encode())
            text = f"{OBJECT_MARK}{path}"
        told = {
            "t": "decision.made",
            "tenant": tenant,
            "run": run_id,
            "gen": int(generation),
            "decision": self.name,
            "trigger": inputs.trigger,
            "action": decision.action,
            "reason": decision.reason,
            "flags": list(decision.flags),
            "inputs_hash": digest,
            "inputs": text,
            "plan": _json(decision.modifications()),
            "projected": str(decision.projected),
            "confidence_permille": decision.confidence_permille,
            "concurrency_percent": decision.concurrency_percent,
            "policy_version": inputs.policy_version,
            "observed": int(inputs.tenant.observe),
            "cause": self.cause,
            "basis": basis,
        }
        return _json(told | ({"kept": list(kept)} if kept else {}))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
