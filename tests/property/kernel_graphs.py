"""Graphs as a submission loads them, small and random, now and then a wide one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from orchestrator.graph.branches import gated, gates
from orchestrator.graph.condition import Condition
from orchestrator.model import AdoptRow, NodeRow


@dataclass(frozen=True)
class Graph:
    """What a submission loads, and how."""

    run: str
    tenant: str
    rows: tuple[NodeRow, ...]
    degraded: int
    want: str
    adopts: tuple[AdoptRow, ...] = ()

    @property
    def ids(self) -> list[str]:
        return [row[0] for row in self.rows]

    def grown(self, node: str) -> tuple[dict[str, object], tuple[NodeRow, ...]]:
        """What a node becomes that grows, always the same: items of a list, or a small graph, children before their parents."""
        index = int(node.split(".")[0][1:])
        rule = ["all_succeeded", "all_done", 1][index % 3]
        join = {"joins": [[node, rule, 1]]}
        if index % 2:
            row = (("b", 1, [], join), ("a", 0, [f"{node}.b"], {}), ("c", 0, [], join))
            return {"rule": rule, "gathers": 2, "of": 3, "source": "graph"}, tuple(_grown(node, *each, index) for each in row)
        rows = tuple(_grown(node, str(item), 0, [], join, index) for item in range(index % 5 + 1))
        return {"rule": rule, "gathers": len(rows), "of": len(rows)}, rows

    @property
    def roots(self) -> list[str]:
        return [row[0] for row in self.rows if row[1] == 0]


def _grown(node: str, name: str, wait: int, below: list[str], join: dict[str, object], index: int) -> NodeRow:
    required = index % 4 != 3
    ctl: dict[str, object] = {"floor": "7" if required else "0", "amounts": {"": "12", "cheap": "7"}, "required": required}
    ctl |= {"attempts": 1 + index % 2, "next": below, **join}
    fragment = json.dumps({"of": name}) if index % 2 else f"{node}*"
    return f"{node}.{name}", wait, json.dumps(ctl), "spec", "cheap" if index % 5 == 4 else "", fragment


CONDITIONS = (Condition("", "equals", ("result",)), Condition("", "equals", ("other",)), Condition("", "not_equals", ("other",)))
"""In these runs every result is "result"."""


def _joins(draw: st.DrawFn, parents: dict[int, list[int]]) -> tuple[dict[int, str | int], dict[int, Condition]]:
    """Which nodes count their parents, by which rule, and under which condition they run."""
    whens: dict[int, Condition] = {}
    rules: dict[int, str | int] = {}
    for node, above in parents.items():
        if not above:
            continue
        rule = draw(st.sampled_from(["all_succeeded", "all_succeeded", "all_done", draw(st.integers(1, len(above)))]))
        if draw(st.integers(0, 2)) == 0:
            whens[node] = replace(draw(st.sampled_from(CONDITIONS)), ref=f"n{draw(st.sampled_from(above))}")
        if rule != "all_succeeded" or node in whens:
            rules[node] = rule
    named = {str(node): [str(parent) for parent in above] for node, above in parents.items()}
    for node in gated(named, gates(named, [str(node) for node in whens])):
        rules.setdefault(int(node), "all_succeeded")
    return rules, whens


@st.composite
def graphs(draw: st.DrawFn, run: str, most: int = 8) -> Graph:
    wide = most == 8 and draw(st.integers(0, 40)) == 17
    size = 230 if wide else draw(st.integers(1, most))
    parents: dict[int, list[int]] = {}
    for child in range(size):
        candidates = [0] if wide and child else range(child)
        parents[child] = [parent for parent in candidates if wide or draw(st.integers(0, 2)) == 0]
    rules, whens = ({}, {}) if wide or draw(st.booleans()) else _joins(draw, parents)
    rows, estimate, floor = [], 0, 0
    for index in range(size):
        required = index % 3 == 0 if wide else draw(st.sampled_from([True, True, False]))
        base = 2 if wide else draw(st.sampled_from([0, 5, 40, 120, 400]))
        cheap = base // 4
        verdict = "" if wide else draw(st.sampled_from(["", "", "cheap"]))
        least = min(base, cheap) if required else 0
        grows = not wide and draw(st.integers(0, 5)) == 3
        ctl = {
            **({"floor": "0", "expects": str(least), "map": 1} if grows else {"floor": str(least)}),
            "amounts": {"": str(base), "cheap": str(cheap)},
            "required": required,
            "attempts": draw(st.integers(1, 3)) if index < 8 else 1,
            "next": [f"n{child}" for child in range(size) if index in parents[child] and child not in rules],
        }
        if joins := [[f"n{child}", rules[child]] for child in range(size) if index in parents[child] and child in rules]:
            ctl["joins"] = joins
        if isinstance(rules.get(index), int):
            ctl["least"] = rules[index]
        if index in whens:
            ctl["when"] = whens[index].document()
        estimate += cheap if verdict else base
        floor += min(base, cheap) if required else 0
        rows.append((f"n{index}", len(parents[index]), json.dumps(ctl), f"spec of n{index}", verdict, str(index // 3)))
    budget = draw(st.sampled_from(["", "", str(estimate), str(floor), "60"]))
    want = {"graph": "g", "total": size, "estimate": str(estimate), "floor": str(floor), "budget": budget, "priority": 5}
    want |= {"full": draw(st.sampled_from([0, 0, 0, 1]))}
    pool = draw(st.sampled_from(["", "default"]))
    want |= {"max_parallel": draw(st.sampled_from(["", "", 2])), "pools": [pool], "roots": {pool: sum(row[1] == 0 for row in rows)}}
    if draw(st.integers(0, 3)) == 0:
        want["on_failure"] = "stop"
    want["tasks"] = ["draft", "absent"] if draw(st.integers(0, 19)) == 7 else ["draft"]
    tenant = draw(st.sampled_from([*["acme"] * 9, *["beta"] * 3, *["gamma"] * 3, "closed", "nobody"]))
    adopts: list[AdoptRow] = []
    if draw(st.integers(0, 4)) == 0:  # a later generation: children before parents, as the submission has them
        taken = [index for index in range(size - 1, -1, -1) if draw(st.booleans())]
        adopts = [(f"n{index}", index % 2 + 1, '"before"', rows[index][4] and "cheap") for index in taken[:200]]
        left = [index for index in range(min(8, size)) if index not in taken and draw(st.booleans())]
        adopts += [(f"n{index}.{name}", 1, '"before"', "") for index in left for name in ("0", "b") if draw(st.booleans())]
    return Graph(run, tenant, tuple(rows), draw(st.integers(0, 1)), json.dumps(want), tuple(adopts))
