"""The load: which tenants have which runs, what these are estimated at, and what they will really cost. Pure, and the same every time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.graph import Graph

TENANTS: Final = 30
PERCENT: Final = 60
"""Of what a tenant's runs are projected to cost, so much is its limit."""

WORK: Final = "bench.agent.work"
SECONDS: Final = (0.8, 2.4)
"""Least and greatest time of a node."""


@dataclass(frozen=True)
class Load:
    """A tenant's runs, all submitted at once. Amounts in micros.

    kind: `estimated`: the estimates are right, and the limit is 60 % of them, which admission knows. `overrun`: each node costs 10/6 of
    what it was estimated at, so that the estimates fit the limit and only what happens says that the money will not do.
    """

    tenant: str
    kind: str
    graphs: tuple[Graph, ...]
    projected: int
    limit: int


def loads() -> Iterator[Load]:
    """Yield the thirty tenants: every third has right estimates and one run, the others one to three runs that cost more than they say."""
    for number in range(TENANTS):
        dice = random.Random(number)
        kind = "estimated" if number % 3 == 0 else "overrun"
        count = 1 if kind == "estimated" else 1 + number % 3
        shapes = [SHAPES[(number + each) % len(SHAPES)] for each in range(count)]
        made = [shape(dice) for shape in shapes]
        projected = sum(node["cost"] for nodes in made for node in nodes)
        graphs = tuple(
            _graph(f"{shape.__name__}_{number}_{at}", nodes, kind, dice) for at, (shape, nodes) in enumerate(zip(shapes, made, strict=True))
        )
        yield Load(f"t{number:02}", kind, graphs, projected, projected * PERCENT // 100)


def _graph(name: str, nodes: list[dict[str, Any]], kind: str, dice: random.Random) -> Graph:
    told = []
    for node in nodes:
        said = node["cost"] if kind == "estimated" else node["cost"] * PERCENT // 100
        seconds = round(dice.uniform(*SECONDS), 2)
        made = {"id": node["id"], "task": WORK, "after": node["after"], "required": node["required"], "value": node["value"], "attempts": 1}
        made |= {"params": {"micros": node["cost"], "seconds": seconds}, "estimate": {"llm": said}}
        if node["cheaper"]:
            micros = node["cost"] * node["cheaper"] // 100
            cheap = {"name": "cheap", "kind": dice.choice(("generation", "retrieval", "variant")), "params": {"micros": micros}}
            made["variants"] = [{**cheap, "estimate": {"llm": said * node["cheaper"] // 100}, "value": node["value"] * 6 // 10}]
        told.append(made)
    return Graph.parse({"name": name, "nodes": told})


def _node(dice: random.Random, name: str, after: list[str], *, required: bool) -> dict[str, Any]:
    """A node that costs 2,000 to 20,000; most of those that are required have a variant for about a third."""
    cheaper = dice.choice((25, 35, 45)) if dice.random() < (0.8 if required else 0.4) else 0
    return {
        "id": name,
        "after": after,
        "required": required,
        "cost": dice.randint(2_000, 20_000),
        "value": dice.randint(1, 10),
        "cheaper": cheaper,
    }


def layers(dice: random.Random) -> list[dict[str, Any]]:
    """Six layers of four nodes, each waiting for the required ones of the layer before; the last two of a layer are optional."""
    nodes = []
    for layer in range(6):
        after = [f"n{layer - 1}x{each}" for each in range(2)] if layer else []
        nodes += [_node(dice, f"n{layer}x{each}", after, required=each < 2) for each in range(4)]
    return nodes


def chain(dice: random.Random) -> list[dict[str, Any]]:
    """Twelve required steps, each with an optional enrichment that nothing needs."""
    nodes = []
    for step in range(12):
        after = [f"s{step - 1}"] if step else []
        nodes += [_node(dice, f"s{step}", after, required=True), _node(dice, f"e{step}", [f"s{step}"], required=False)]
    return nodes


def fan(dice: random.Random) -> list[dict[str, Any]]:
    """Twelve drafts in three waves, half of them optional, and a merge after each wave."""
    nodes, before = [], []
    for wave in range(3):
        drafts = [_node(dice, f"d{wave}x{each}", before, required=each % 2 == 0) for each in range(4)]
        merge = _node(dice, f"m{wave}", [draft["id"] for draft in drafts], required=True)
        nodes, before = [*nodes, *drafts, merge], [f"m{wave}"]
    return nodes


def tangle(dice: random.Random) -> list[dict[str, Any]]:
    """Twenty-five nodes that wait for up to three of the six before them: no series and no parallel."""
    nodes: list[dict[str, Any]] = []
    for at in range(25):
        parents = dice.sample(nodes[max(0, at - 6) : at], min(at, dice.randint(1, 3))) if at else []
        nodes.append(_node(dice, f"n{at}", sorted(parent["id"] for parent in parents), required=dice.random() < 0.5))
    return nodes


SHAPES: Final = (layers, chain, fan, tangle)
