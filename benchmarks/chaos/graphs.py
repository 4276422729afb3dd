"""The mix of graphs: small real workflows and random shapes, with nodes that sleep, fail and spend, joins and conditions."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.chaos.log import NodeShape

WORKFLOWS = Path(__file__).resolve().parents[2] / "tests" / "workflows"
REAL = ("blast-chameleon-small-001", "epigenomics-chameleon-hep-1seq-100k-001", "montage-chameleon-2mass-005d-001")
PART_OF_REAL = ("seismology-chameleon-500p-001", "bwa-chameleon-large-001")
PART_NODES = 40
"""The larger workflows are cut down to this many nodes with what lies between them: seeds are to be many, not large."""

TENANTS = ("acme", "globex", "initech")

Parents = dict[str, tuple[str, ...]]


def mixed_graph(rng: random.Random, name: str) -> dict[str, Any]:
    """Return a graph as a JSON document: 4 to 60 nodes, each with about 5 to 50 ms of work, a few with more."""
    shape = rng.choice((_real, _real, _layered, _layered, _series_parallel, _n_shaped, _part_of_real))
    parents = shape(rng)
    optional = {node for node in parents if rng.random() < 0.12}
    doomed = rng.choice(sorted(parents)) if rng.random() < 0.15 else None
    nodes = {node: _node(rng, node, before, optional, node == doomed) for node, before in parents.items()}
    _add_joins(rng, nodes, parents)
    _add_conditions(rng, nodes, parents, doomed)
    _add_maps(rng, nodes, optional)
    stops = {"on_failure": "stop"} if rng.random() < 0.2 else {}
    return {"name": name, **stops, "nodes": list(nodes.values())}


def shape_of(document: Mapping[str, Any]) -> dict[str, NodeShape]:
    """Return what the checker must know of a graph's nodes."""
    found = {}
    for node in document["nodes"]:
        spends = node["task"] == "synthetic.spend"
        charge = {node["params"]["category"]: node["params"]["micros"]} if spends else {}
        before = (*node.get("after", ()), *(each["$ref"] for each in node["params"].get("inputs", ())))
        fails = node["task"] == "synthetic.fail"
        join, when = _rule(str(node.get("join", "all_succeeded"))), node.get("when")
        found[str(node["id"])] = NodeShape(
            tuple(sorted(set(before))),
            bool(node.get("required", True)),
            charge,
            fails,
            "all_succeeded" if "map" in node else join,
            (str(when["$ref"]), json.dumps(when[(how := _comparison(when))]), how == "equals") if when else None,
            join if "map" in node else None,
        )
    return found


def _rule(join: str) -> str | int:
    return int(join[len("at_least(") : -1]) if join.startswith("at_least") else join


def _comparison(when: Mapping[str, Any]) -> str:
    return "equals" if "equals" in when else "not_equals"


def _add_joins(rng: random.Random, nodes: Mapping[str, dict[str, Any]], parents: Parents) -> None:
    """A fifth of the nodes with several parents wait for all of them however they end, an eighth for some successes."""
    for node, before in parents.items():
        dice = rng.random()
        if len(before) > 1 and dice < 0.32:
            nodes[node]["join"] = "all_done" if dice < 0.2 else f"at_least({rng.randint(1, len(before))})"


def _add_maps(rng: random.Random, nodes: Mapping[str, dict[str, Any]], optional: set[str]) -> None:
    """In half of the graphs up to two nodes run once for each of 2 to 30 items, some of which fail, once or for good."""
    free = [name for name, node in nodes.items() if "when" not in node and "join" not in node and name not in optional]
    if not free or rng.random() < 0.5:
        return
    for name in rng.sample(free, min(len(free), rng.randint(1, 2))):
        width, node = rng.randint(2, 30), nodes[name]
        inputs = {key: value for key, value in node["params"].items() if key == "inputs"}
        join = rng.choice(("all_succeeded", "all_done", f"at_least({rng.randint(1, width)})"))
        most = 1 if join == "all_succeeded" else 9
        items = [rng.choice((0, 0, 0, 0, 1, most)) for _ in range(width)]
        node.update(task="synthetic.fail", params={"times": {"$item": True}, **inputs}, map=items, join=join, attempts=3)


def _add_conditions(rng: random.Random, nodes: Mapping[str, dict[str, Any]], parents: Parents, doomed: str | None) -> None:
    """In half of the graphs children of up to three nodes look at what those returned; about half of them are not taken."""
    if rng.random() < 0.5:
        return
    children: dict[str, list[str]] = {node: [] for node in parents}
    for node, before in parents.items():
        for parent in before:
            children[parent].append(node)
    deciding = [node for node in sorted(parents) if children[node] and node != doomed]
    for node in rng.sample(deciding, min(len(deciding), rng.randint(1, 3))):
        micros = rng.randint(1, 3_000)
        inputs = {name: value for name, value in nodes[node]["params"].items() if name == "inputs"}
        nodes[node].update(task="synthetic.spend", params={"category": "other", "micros": micros, **inputs})
        nodes[node].pop("attempts", None)
        for child in children[node]:
            if rng.random() < 0.6 and "when" not in nodes[child]:
                value = rng.choice((micros, micros + 1))
                nodes[child]["when"] = {"$ref": node, rng.choice(("equals", "not_equals")): value}


def _node(rng: random.Random, node: str, parents: tuple[str, ...], optional: set[str], doomed: bool) -> dict[str, Any]:
    task, params = _work(rng, doomed)
    made: dict[str, Any] = {"id": node, "task": task, "params": params}
    # A required node may not depend on the result of an optional one, only come after it.
    read = [parent for parent in parents if parent not in optional and rng.random() < 0.5]
    if read:
        params["inputs"] = [{"$ref": parent} for parent in read]
    after = [parent for parent in parents if parent not in read]
    if after:
        made["after"] = after
    if node in optional:
        made["required"] = False
    if task == "synthetic.fail":
        made["attempts"] = 3
    return made


def _work(rng: random.Random, doomed: bool) -> tuple[str, dict[str, Any]]:
    if doomed:
        return "synthetic.fail", {"times": 1_000_000}
    dice = rng.random()
    if dice < 0.25:
        # `compute` is left out: processor time is charged there on top, and is not known beforehand.
        return "synthetic.spend", {"category": rng.choice(("llm", "retrieval", "storage", "other")), "micros": rng.randint(1, 3_000)}
    if dice < 0.31:
        return "synthetic.fail", {"times": rng.choice((1, 1, 2))}
    if dice < 0.42:
        return "synthetic.sleep", {"seconds": round(rng.uniform(0.3, 0.8), 3)}
    return "synthetic.sleep", {"seconds": round(rng.uniform(0.005, 0.05), 3)}


# Shapes: the parents of each node, parents first.


def _real(rng: random.Random) -> Parents:
    return _read(rng.choice(REAL))


def _part_of_real(rng: random.Random) -> Parents:
    whole = _read(rng.choice(PART_OF_REAL))
    inner = {parent for before in whole.values() for parent in before}
    ends = [node for node in whole if node not in inner]
    sink = rng.choice(ends)
    kept = {sink}
    frontier = [sink]
    while frontier and len(kept) < PART_NODES:
        before = [parent for parent in whole[frontier.pop(0)] if parent not in kept]
        chosen = rng.sample(before, min(len(before), PART_NODES - len(kept)))
        kept.update(chosen)
        frontier.extend(chosen)
    return {node: tuple(parent for parent in before if parent in kept) for node, before in whole.items() if node in kept}


def _read(name: str) -> Parents:
    document = json.loads((WORKFLOWS / f"{name}.json").read_text())
    short = {node["id"]: re.sub(r"[^A-Za-z0-9_.-]", "_", node["id"])[:100] for node in document["nodes"]}
    before: dict[str, list[str]] = {node: [] for node in short.values()}
    for parent, child in document["edges"]:
        before[short[child]].append(short[parent])
    return {node: tuple(dict.fromkeys(parents)) for node, parents in before.items()}


def _layered(rng: random.Random) -> Parents:
    layers = [[f"l{depth}n{at}" for at in range(rng.randint(2, 6))] for depth in range(rng.randint(3, 5))]
    parents: Parents = {}
    for depth, layer in enumerate(layers):
        earlier = layers[depth - 1] if depth else []
        far = [node for each in layers[: max(0, depth - 1)] for node in each]
        for node in layer:
            near = rng.sample(earlier, min(len(earlier), rng.randint(1, 3)))
            skips = rng.sample(far, 1) if far and rng.random() < 0.2 else []
            parents[node] = (*near, *skips)
    return parents


def _series_parallel(rng: random.Random) -> Parents:
    parents: Parents = {}

    def new(before: tuple[str, ...]) -> str:
        name = f"s{len(parents)}"
        parents[name] = before
        return name

    def series(before: tuple[str, ...], depth: int) -> str:
        last = new(before)
        for _ in range(rng.randint(1, 3)):
            if depth and rng.random() < 0.6:
                ends = tuple(series((last,), depth - 1) for _ in range(rng.randint(2, 4)))
                last = new(ends)
            else:
                last = new((last,))
        return last

    series((), 2)
    return parents


def _n_shaped(rng: random.Random) -> Parents:
    """N after N: of each pair the left node has one parent, the right one both, so that no series-parallel plan fits."""
    parents: Parents = {"a0": (), "b0": ()}
    for at in range(1, rng.randint(3, 7)):
        parents[f"a{at}"] = (f"a{at - 1}",)
        parents[f"b{at}"] = (f"a{at - 1}", f"b{at - 1}")
    return parents
