"""The options of a node that are worth a price."""

from __future__ import annotations

from collections.abc import Iterable

from cost.node_cost import Option


def hull_of(options: Iterable[Option]) -> list[Option]:
    """Return the options that are best at some price, cheapest first: the upper concave hull of value over cost."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda each: (each.cost, -each.value)):
        if hull and option.value <= hull[-1].value:
            continue
        while len(hull) > 1:
            below, last = hull[-2], hull[-1]
            if (option.value - last.value) * (last.cost - below.cost) < (last.value - below.value) * (option.cost - last.cost):
                break
            hull.pop()
        hull.append(option)
    return hull
