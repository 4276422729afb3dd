"""A Lagrange multiplier on the money: the value that a micro must bring, and with it a plan and a bound on every plan.

At a price per micro each node that is worth its price runs at its best option. A node that is not worth it runs all the same where what it
feeds pays for it: surplus is passed from child to parent in one pass against the order of the graph, which finds the maximum closure
where no node has more than one such parent. Elsewhere the plan is a good one, and the bound holds all the same (weak duality: what
stays after passing on is no less than what any plan is worth at that price). See Fisher, "The Lagrangian relaxation method for
solving integer programming problems", Management Science 27 (1981). Only IEEE arithmetic in a fixed order: the same everywhere.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from cost.node_cost import SKIP, Option
from cost.optimiser.filling import between
from cost.optimiser.graph import Bounded, Graph, value_of
from cost.optimiser.hull import hull_of

# Prices that are tried, the share of the bound that a plan may stay below it, and how near to each other two prices may come.
_PRICES_MAX: Final = 40
_SHORT: Final = 1e-4
_NEAR: Final = 1e-9

# Sums of doubles are inexact by less than this share of what they add up.
_INEXACT: Final = 1e-9


class _At(NamedTuple):
    """What comes of a price: what the plan costs and is worth, and the bound."""

    cost: int
    value: int
    bound: float


def priced(graph: Graph, available: int) -> Bounded:
    """Return a plan within `available` micros, filled up, with a bound on all plans. The floor fits, and everything does not."""
    market = _Market.of(graph)
    price, none, most = market.first(available), 0.0, market.dearest
    fitting, bound, worth = most, math.inf, -1
    for _ in range(_PRICES_MAX):
        found = market.at(price, available)
        bound = min(bound, found.bound)
        if found.cost <= available:
            fitting = min(fitting, price)
            worth = max(worth, found.value)
        else:
            none = max(none, price)
        if fitting - none <= _NEAR * fitting or bound - worth <= _SHORT * bound:
            break
        if not none:
            price = fitting / 2
        elif fitting >= most:
            price = min(2 * price, most)
        else:
            price = math.sqrt(none * fitting)
    low = market.plan(fitting)
    chosen = between(graph, low, market.plan(none), available)
    return Bounded(chosen, max(value_of(chosen), math.floor(bound * (1 + _INEXACT))))


class _Rise(NamedTuple):
    """One step up a node's options: what it costs and is worth more, and that per micro. Steps of a node become less worthwhile."""

    cost: int
    value: int
    worth: float


class _Tied(NamedTuple):
    """A node that runs behind other optional ones, or has such behind it; ties by place among the tied ones."""

    id_: str
    rises: tuple[_Rise, ...]
    all_of: tuple[int, ...]
    any_of: tuple[int, ...]


@dataclass(slots=True)
class _Market:
    """The graph as prices see it: nodes that stand alone, whose rises are sorted once, and those that are tied."""

    hulls: dict[str, list[Option]]
    skips: dict[str, Option] = field(default_factory=dict)
    tied: list[_Tied] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    worths: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, graph: Graph) -> _Market:
        ties = {id_: graph.ties(id_) for id_, node in graph.nodes.items() if not node.required}
        places = {id_ for id_, tie in ties.items() if any(tie)}
        places.update(other for tie in ties.values() for other in (*tie.all_of, *tie.any_of))
        market = cls({})
        order = [id_ for id_ in graph.nodes if id_ in places]
        place = {id_: index for index, id_ in enumerate(order)}
        rises: list[_Rise] = []
        cost = value = 0
        for id_, options in graph.options.items():
            if id_ in places:
                hull = hull_of(option for option in options if option.choice != SKIP)
                market.skips[id_] = options[-1]
                all_of, any_of = ties[id_]
                found = (_rise(hull[0].cost, hull[0].value), *_rises(hull))
                market.tied.append(_Tied(id_, found, tuple(place[each] for each in all_of), tuple(place[each] for each in any_of)))
            else:
                hull = hull_of(options)
                cost += hull[0].cost
                value += hull[0].value
                rises.extend(_rises(hull))
            market.hulls[id_] = hull
        rises.sort(key=lambda rise: -rise.worth)
        market.worths = [-rise.worth for rise in rises]
        market.costs = list(accumulate((rise.cost for rise in rises), initial=cost))
        market.values = list(accumulate((rise.value for rise in rises), initial=value))
        return market

    @property
    def dearest(self) -> float:
        """A price that only what costs nothing is worth, so that the plan is the floor."""
        tied = (rise.worth for node in self.tied for rise in node.rises if rise.cost)
        total = sum(rise.value for node in self.tied for rise in node.rises)
        return 1 + 2 * max([*tied, *(-worth for worth in self.worths[:1]), float(total)], default=0.0)

    def first(self, available: int) -> float:
        """The price at which the money would be spent if nothing were tied."""
        steps = [rise for node in self.tied for rise in node.rises if rise.cost]
        alone = zip(self.worths, (after - before for before, after in pairwise(self.costs)), strict=True)
        left = available - self.costs[0]
        for worth, cost in sorted([*alone, *((-rise.worth, rise.cost) for rise in steps)]):
            left -= cost
            if left < 0:
                return max(-worth, _NEAR)
        return _NEAR

    def at(self, price: float, available: int) -> _At:
        """Return what comes of a price."""
        index = bisect_left(self.worths, -price)
        cost, value = self.costs[index], self.values[index]
        bound = price * (available - cost) + value
        if self.tied:
            kept, runs, picked = self._closure(price)
            bound += kept
            cost += sum(each[0] for each, run in zip(picked, runs, strict=True) if run)
            value += sum(each[1] for each, run in zip(picked, runs, strict=True) if run)
        return _At(cost, value, bound)

    def plan(self, price: float) -> dict[str, Option]:
        """Return the plan that comes of a price."""
        runs: dict[str, bool] = {}
        if self.tied:
            runs = dict(zip((node.id_ for node in self.tied), self._closure(price)[1], strict=True))
        return {id_: _pick(hull, price) if runs.get(id_, True) else self.skips[id_] for id_, hull in self.hulls.items()}

    def _closure(self, price: float) -> tuple[float, list[bool], list[tuple[int, int]]]:
        """Return what the tied nodes keep of their surplus, which of them run, and what each costs and is worth if it does."""
        picked: list[tuple[int, int]] = []
        for node in self.tied:
            cost, value, _ = node.rises[0]
            for rise in node.rises[1:]:
                if rise.worth <= price:
                    break
                cost += rise.cost
                value += rise.value
            picked.append((cost, value))
        left = [value - price * cost for cost, value in picked]
        worth = list(left)
        for index in range(len(left) - 1, -1, -1):
            worth[index] = surplus = left[index]
            if surplus <= 0:
                continue
            node = self.tied[index]
            if node.all_of:
                for parent in node.all_of[:-1]:
                    given = min(surplus, max(0.0, -left[parent]))
                    left[parent] += given
                    surplus -= given
                left[node.all_of[-1]] += surplus
                left[index] = 0.0
            elif node.any_of:
                given = min(surplus, -max(left[parent] for parent in node.any_of))
                if given > 0:
                    for parent in node.any_of:
                        left[parent] += given
                    left[index] -= given
        runs: list[bool] = []
        for node, surplus in zip(self.tied, worth, strict=True):
            behind = all(runs[parent] for parent in node.all_of) and (not node.any_of or any(runs[parent] for parent in node.any_of))
            runs.append(behind and surplus > 0)
        return sum(each for each in left if each > 0), runs, picked


def _rise(cost: int, value: int) -> _Rise:
    return _Rise(cost, value, value / cost if cost else math.inf)


def _rises(hull: list[Option]) -> list[_Rise]:
    return [_rise(above.cost - below.cost, above.value - below.value) for below, above in pairwise(hull)]


def _pick(hull: list[Option], price: float) -> Option:
    # By the very numbers that `at` went by, so that a plan costs what it was counted at.
    return hull[sum(rise.worth > price for rise in _rises(hull))]
