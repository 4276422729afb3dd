"""The linear relaxation, solved by HiGHS: a bound on every plan, a plan rounded from it, and a short search where rounding loses much."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from cost.node_cost import SKIP, Option
from cost.optimiser.filling import between
from cost.optimiser.graph import Bounded, Graph, cost_of, value_of
from cost.optimiser.hull import hull_of

# What the search may do: nodes of its tree, and the share of its bound that its plan may stay below it.
_NODES_MAX: Final = 100
_GAP: Final = 2e-3

# HiGHS keeps a row to within 1e-7 of its scale. The money is cut by a little more, so that what fits there fits here.
_CUT: Final = 1e-6

# How near to 0 or 1 a number is taken for it; and by how much more a bound may be than the solver says.
_WHOLE: Final = 1e-5
_INEXACT: Final = 1e-6


def relaxed(graph: Graph, available: int, least: float) -> Bounded:
    """Return a plan within `available` micros, rounded from the relaxation and filled up, with a bound on all plans.

    least: the share of the bound that a rounded plan has to keep; where it does not, branch and bound looks for a
    better one, for a bounded number of steps. The floor fits, and everything does not.
    """
    program = _Program.of(graph)
    solution, bound = program.solve(available)
    low, high = program.rounded(solution, _WHOLE, up=False), program.rounded(solution, _WHOLE, up=True)
    best = between(graph, low if cost_of(low) <= available else graph.cheapest(), high, available)
    if value_of(best) < least * bound and (found := program.search(available)) is not None:
        whole = program.rounded(found, 0.5, up=True)
        if cost_of(whole) <= available:
            best = max(best, between(graph, whole, whole, available), key=value_of)
    return Bounded(best, max(bound, value_of(best)))


@dataclass(slots=True)
class _Node:
    """The columns of a node: whether it runs (None: always), and then one for each rise over the option before."""

    hull: list[Option]
    runs: int | None
    first: int


@dataclass(slots=True)
class _Program:
    """Value to be kept, per column; rows that must not be positive, as triples; and what is spent and kept whatever is chosen."""

    graph: Graph
    nodes: dict[str, _Node] = field(default_factory=dict)
    values: list[int] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    rows: list[tuple[int, int, float]] = field(default_factory=list)
    count: int = 0
    spent: int = 0
    kept: int = 0

    @classmethod
    def of(cls, graph: Graph) -> _Program:
        program = cls(graph)
        for id_, options in graph.options.items():
            hull = hull_of(option for option in options if option.choice != SKIP)
            runs = None if graph.nodes[id_].required else program._column(hull[0].cost, hull[0].value)
            if runs is None:
                program.spent += hull[0].cost
                program.kept += hull[0].value
            program.nodes[id_] = _Node(hull, runs, len(program.values))
            for below, above in pairwise(hull):
                column = program._column(above.cost - below.cost, above.value - below.value)
                if runs is not None:
                    program._row((column, 1), (runs, -1))
        for id_, node in program.nodes.items():
            if node.runs is None:
                continue
            tie = graph.ties(id_)
            for need in tie.all_of:
                program._row((node.runs, 1), (program._runs(need), -1))
            if tie.any_of:
                program._row((node.runs, 1), *((program._runs(feeder), -1) for feeder in tie.any_of))
        return program

    def _runs(self, id_: str) -> int:
        column = self.nodes[id_].runs
        assert column is not None, f"{id_} is required, and ties nobody"
        return column

    def _column(self, cost: int, value: int) -> int:
        self.costs.append(cost)
        self.values.append(value)
        return len(self.values) - 1

    def _row(self, *entries: tuple[int, float]) -> None:
        self.rows.extend((self.count, column, factor) for column, factor in entries)
        self.count += 1

    def _matrix(self, available: int) -> tuple[Any, Any, Any]:
        """Return what is minimised, the matrix and its right side. Money and value are scaled to at most 1 a column."""
        import numpy as np  # a producer that never plans a large graph does not wait for it
        from scipy.sparse import csr_array

        dearest, best = max(self.costs, default=1) or 1, max(self.values, default=1) or 1
        money = [(self.count, column, cost / dearest) for column, cost in enumerate(self.costs)]
        row, column, factor = zip(*self.rows, *money, strict=True)
        matrix = csr_array((np.array(factor, float), (row, column)), shape=(self.count + 1, len(self.values)))
        right = np.zeros(self.count + 1)
        right[-1] = (available - self.spent) / dearest * (1 - _CUT)
        return -np.array(self.values, float) / best, matrix, right

    def solve(self, available: int) -> tuple[list[float], int]:
        """Return how much of each column the relaxation takes, and the bound."""
        from scipy.optimize import linprog

        aim, matrix, right = self._matrix(available)
        found = linprog(aim, A_ub=matrix, b_ub=right, bounds=(0, 1), method="highs-ds")
        if found.x is None:
            raise RuntimeError(f"HiGHS found no relaxed plan where the floor fits: {found.message}")
        # What was cut from the money could have kept its share of the value at most.
        most = self.kept + -found.fun * (max(self.values, default=1) or 1)
        return found.x.tolist(), math.floor(most * (1 + _INEXACT + 2 * _CUT))

    def search(self, available: int) -> list[float] | None:
        """Return the best whole choice that branch and bound comes to within its steps, or None."""
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp

        aim, matrix, right = self._matrix(available)
        found = milp(
            aim,
            constraints=LinearConstraint(matrix, -np.inf, right),
            integrality=np.ones(len(self.values)),
            bounds=Bounds(0, 1),
            options={"node_limit": _NODES_MAX, "mip_rel_gap": _GAP},
        )
        return None if found.x is None else found.x.tolist()

    def rounded(self, solution: list[float], least: float, *, up: bool) -> dict[str, Option]:
        """Return the plan of what is taken whole, or (`up`) of all that is taken at all; ties are kept."""
        least = least if up else 1 - least
        chosen: dict[str, Option] = {}
        skipped: set[str] = set()
        for id_, node in self.nodes.items():
            if (node.runs is not None and solution[node.runs] <= least) or self.graph.forced(id_, skipped):
                skipped.add(id_)
                chosen[id_] = self.graph.options[id_][-1]
                continue
            rises = 0
            while rises + 1 < len(node.hull) and solution[node.first + rises] > least:
                rises += 1
            chosen[id_] = node.hull[rises]
        return chosen
