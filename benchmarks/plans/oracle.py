"""The exact optimum of a plan, by HiGHS's branch and bound on every option as it is declared; shares nothing with the planner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from cost.plan import NodeCost, PlanDown

NODES_MAX = 1_000


def parents_of(nodes: Sequence[NodeCost]) -> dict[str, set[str]]:
    """Return what feeds each node."""
    known = {node.id for node in nodes}
    parents: dict[str, set[str]] = defaultdict(set)
    for node in nodes:
        for child in node.children:
            if child in known:
                parents[child].add(node.id)
        parents[node.id].update(need for need in node.needs if need in known)
    return parents


def optimum(nodes: Sequence[NodeCost], available: int) -> float:
    """Return a value that no plan within `available` micros exceeds: the optimum, or what is proven of it when the search ends."""
    columns: list[tuple[str, int, int]] = []
    runs: dict[str, list[int]] = defaultdict(list)
    for node in nodes:
        for cost, value in ((node.estimate_micros, node.value), *((v.estimate_micros, min(v.value, node.value)) for v in node.variants)):
            runs[node.id].append(len(columns))
            columns.append((node.id, cost, value))
    rows: list[tuple[dict[int, float], float, float]] = []
    required = {node.id for node in nodes if node.required}
    parents = parents_of(nodes)
    for node in nodes:
        one = dict.fromkeys(runs[node.id], 1.0)
        rows.append((one, 1.0 if node.required else 0.0, 1.0))
        if node.required:
            continue
        needed = [need for need in node.needs if need in runs and need not in required]
        rows.extend((one | dict.fromkeys(runs[need], -1.0), -np.inf, 0.0) for need in needed)
        feeders = parents[node.id]
        if feeders and not node.fed and not feeders & required:
            rows.append((one | {column: -1.0 for feeder in feeders for column in runs[feeder]}, -np.inf, 0.0))
    dearest = max((cost for _, cost, _ in columns), default=1) or 1
    rows.append(({index: cost / dearest for index, (_, cost, _) in enumerate(columns)}, -np.inf, available / dearest))
    entries = [(row, column, factor) for row, (found, _, _) in enumerate(rows) for column, factor in found.items()]
    row, column, factor = zip(*entries, strict=True)
    matrix = csr_array((np.array(factor), (row, column)), shape=(len(rows), len(columns)))
    found = milp(
        -np.array([value for _, _, value in columns], float),
        constraints=LinearConstraint(matrix, [low for _, low, _ in rows], [high for _, _, high in rows]),
        integrality=np.ones(len(columns)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 1e-5, "node_limit": NODES_MAX},
    )
    if found.mip_dual_bound is None:
        raise RuntimeError(f"the oracle has no bound: {found.message}")
    return float(-found.mip_dual_bound)


def faults(nodes: Sequence[NodeCost], plan: PlanDown, available: int) -> list[str]:
    """Return a sentence for each rule that a plan breaks, of those that hold whenever the floor fits."""
    choices: Mapping[str, str] = plan.choices
    parents = parents_of(nodes)
    told = []
    cost = value = 0
    for node in nodes:
        table = {
            "as_is": (node.estimate_micros, node.value),
            **{v.name: (v.estimate_micros, min(v.value, node.value)) for v in node.variants},
        }
        if choices[node.id] == "skip":
            if node.required:
                told.append(f"{node.id} is required, and skipped")
            continue
        cost += table[choices[node.id]][0]
        value += table[choices[node.id]][1]
        if not node.required:
            if any(choices.get(need) == "skip" for need in node.needs):
                told.append(f"{node.id} runs, and what it needs is skipped")
            if parents[node.id] and not node.fed and all(choices[parent] == "skip" for parent in parents[node.id]):
                told.append(f"{node.id} runs, and all that feeds it is skipped")
    if (cost, value) != (plan.cost_micros, plan.value):
        told.append(f"the plan says {plan.cost_micros} micros and a value of {plan.value}; its choices are {cost} and {value}")
    if cost > available or not plan.fits:
        told.append(f"it costs {cost} of {available} micros")
    return told
