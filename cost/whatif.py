"""What would be given up of a graph for less and less money: plans made without running anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from cost.plan import NodeCost, PlanDown, floor, plan_down

ROWS_MAX: Final = 12
CURVE_POINTS: Final = 20


class Row(NamedTuple):
    """A budget in micros, and the plan that it buys."""

    budget: int
    plan: PlanDown


class Prospects(NamedTuple):
    """Plans from everything down to the floor, and the curve of value against budget. Amounts are micros."""

    rows: tuple[Row, ...]
    curve: tuple[tuple[int, int], ...]
    floor: int
    value: int


def prospects(nodes: Sequence[NodeCost], given: int | None = None) -> Prospects:
    """Return what each budget would buy: every step where they are few, else evenly spaced ones.

    given: a budget that is a row in any case, if the floor fits it; it takes the place of the one that buys the same.
    """
    least, full = floor(nodes), sum(node.estimate_micros for node in nodes)
    rows = {row.plan.cost_micros: row for row in (_steps(nodes, full) or _spread(nodes, least, full, ROWS_MAX))}
    if given is not None and given >= least:
        row = Row(given, plan_down(nodes, given))
        rows[row.plan.cost_micros] = row
    ordered = tuple(sorted(rows.values(), key=lambda row: (-row.budget, -row.plan.cost_micros)))
    curve = tuple((row.budget, row.plan.value) for row in _spread(nodes, least, full, CURVE_POINTS))
    return Prospects(ordered, curve[::-1], least, sum(node.value for node in nodes))


def _steps(nodes: Sequence[NodeCost], full: int) -> list[Row]:
    """Return each plan that one micro less would make impossible, from everything down; nothing if those are too many."""
    rows: list[Row] = []
    plan = plan_down(nodes, full)
    while plan.fits and plan.exact:
        rows.append(Row(plan.cost_micros, plan))
        if plan.cost_micros == 0 or len(rows) > ROWS_MAX:
            break
        plan = plan_down(nodes, plan.cost_micros - 1)
    return rows if len(rows) <= ROWS_MAX and (plan.exact or not plan.fits) else []


def _spread(nodes: Sequence[NodeCost], least: int, full: int, points: int) -> Iterator[Row]:
    """Yield the plans for evenly spaced budgets from everything down to the floor."""
    for point in range(points):
        budget = full - (full - least) * point // (points - 1)
        yield Row(budget, plan_down(nodes, budget))
        if least == full:
            return
