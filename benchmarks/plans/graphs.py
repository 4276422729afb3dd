"""Graphs with random shapes, values, variants and budgets, each from a seed and a number; real workflows with the same made up for them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cost.plan import NodeCost, VariantCost, floor

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "tests" / "workflows").glob("*.json"))
KINDS = ("generation", "retrieval", "variant")
SHAPES = ("random", "layers", "chains", "tree", "branches", "apart", "siblings")


@dataclass(frozen=True)
class Case:
    """A graph and what is available for it: at least its floor, and less than all of it."""

    name: str
    nodes: Sequence[NodeCost]
    available: int


def case(seed: int, number: int, nodes_max: int = 2_000) -> Case:
    """Return a random case; every eighth is larger than `nodes_max` nodes, up to five times."""
    dice = random.Random(f"{seed}.{number}")
    large = number % 8 == 0
    count = dice.randint(nodes_max + 1, 5 * nodes_max) if large else round(math.exp(dice.uniform(math.log(4), math.log(nodes_max))))
    shape = dice.choice(SHAPES)
    ids = [f"n{index:05d}" for index in range(count)]
    return _made_up(f"{number} {shape}", ids, list(edges(shape, count, dice)), dice, same=shape == "siblings")


def workflow(path: Path, seed: int) -> Case:
    """Return a real workflow with values, variants and a budget made up for it."""
    document = json.loads(path.read_text())
    ids = [node["id"] for node in document["nodes"]]
    place = {id_: index for index, id_ in enumerate(ids)}
    return _made_up(path.stem, ids, [(place[a], place[b]) for a, b in document["edges"]], random.Random(f"{seed}.{path.stem}"))


def edges(shape: str, count: int, dice: random.Random) -> Iterator[tuple[int, int]]:
    """Yield (parent, child), by place; parents come first."""
    width = dice.randint(2, max(2, min(100, count // 3)))
    joined: list[int] = []
    for child in range(1, count):
        if shape == "random":
            for parent in dice.sample(range(max(0, child - 60), child), min(child, dice.randint(0, 3))):
                yield parent, child
        elif shape == "layers" and child >= width:
            start = (child // width - 1) * width
            for parent in dice.sample(range(start, start + width), min(width, dice.randint(1, 3))):
                yield parent, child
        elif shape == "chains" and child % width:
            yield child - 1, child
        elif shape == "tree":
            yield (child - 1) // width, child
        elif shape in ("branches", "siblings"):
            # Out of one, a width of twos, into one; and again.
            place = child % (2 * width + 2)
            if place == 0:
                yield child - 1, child
            elif place <= width:
                yield child - place, child
            elif place <= 2 * width:
                yield child - width, child
                joined.append(child)
            else:
                for parent in joined:
                    yield parent, child
                joined.clear()


def _made_up(name: str, ids: list[str], pairs: list[tuple[int, int]], dice: random.Random, *, same: bool = False) -> Case:
    children: list[list[str]] = [[] for _ in ids]
    parents: list[list[int]] = [[] for _ in ids]
    for parent, child in pairs:
        children[parent].append(ids[child])
        parents[child].append(parent)
    optional, bare = dice.choice((0.2, 0.5, 0.8, 1.0)), dice.choice((0.0, 0.0, 0.3, 1.0))
    required = [dice.random() >= optional for _ in ids]
    spread = dice.choice((0.0, 1.0, 2.0))
    kinds = [_kind(dice, spread) for _ in range(dice.choice((1, 5)) if same else len(ids))]
    nodes = []
    for index, id_ in enumerate(ids):
        estimate, value, variants = kinds[index % len(kinds)]
        # A required node takes results of optional ones with a default or in a list only.
        needs = () if required[index] else tuple(ids[parent] for parent in parents[index] if dice.random() < bare)
        fed = dice.random() < 0.05
        nodes.append(NodeCost(id_, required[index], value, estimate, None, variants, tuple(children[index]), needs, fed))
    least, full = floor(nodes), sum(node.estimate_micros for node in nodes)
    return Case(name, nodes, least + round((full - least) * dice.uniform(0.02, 0.98)))


def _kind(dice: random.Random, spread: float) -> tuple[int, int, tuple[VariantCost, ...]]:
    estimate, value = (round(size * math.exp(dice.gauss(0, spread))) for size in (10_000, 100))
    variants = []
    for name in "abc"[: dice.randint(0, 3)]:
        cheaper = dice.uniform(0.05, 0.95)
        variants.append(VariantCost(name, dice.choice(KINDS), round(estimate * cheaper), round(value * cheaper ** dice.uniform(0.1, 1.5))))
    return estimate, value, tuple(variants)
