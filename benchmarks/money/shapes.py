"""The graphs that the driver submits, prepared once: chains, fans, layers with optional nodes and variants, of a few thousand micros."""

from __future__ import annotations

import random
from typing import Any

from orchestrator.graph import Graph
from orchestrator.settings import Settings
from orchestrator.submission import Submission

TASK = "synthetic.noop"


def prepare(settings: Settings) -> list[Submission]:
    """Return twelve submissions; they are the same in every block."""
    dice = random.Random(7)
    return [Submission.of(_graph(dice, number), settings) for number in range(12)]


def _graph(dice: random.Random, number: int) -> Graph:
    size = dice.randint(1, 9)
    nodes: list[dict[str, Any]] = []
    for index in range(size):
        after = [f"n{parent}" for parent in range(index) if dice.random() < 0.35]
        llm, compute = dice.choice((0, 40, 300, 900, 2500)), dice.choice((0, 5, 100))
        node: dict[str, Any] = {"id": f"n{index}", "task": TASK, "after": after, "attempts": dice.randint(1, 3)}
        node |= {"estimate": {"llm": llm, "compute": compute}, "value": 5, "required": index == 0 or dice.random() < 0.65}
        if dice.random() < 0.4:
            node["variants"] = [{"name": "cheap", "kind": "variant", "params": {"cheap": True}, "estimate": {"llm": llm // 4}, "value": 1}]
        nodes.append(node)
    return Graph.parse({"name": f"shape_{number}", "nodes": nodes})
