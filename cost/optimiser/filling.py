"""Filling: what the money still allows is given back to a plan, largest gain per micro first, until nothing more fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from cost.node_cost import AS_IS, SKIP, Option
from cost.optimiser.graph import Chosen, Graph, cost_of

# Nodes that one step brings back along with one that was skipped; bounds a step on long optional chains.
_BUNDLE_MAX: Final = 50


class _Bundle(NamedTuple):
    """Choices that are taken together, and what they gain and cost."""

    choices: dict[str, Option]
    gain: int
    cost: int

    @property
    def rank(self) -> tuple[float, str]:
        """Most gain per micro first, then by id."""
        return (-self.gain / self.cost if self.cost > 0 else float("-inf"), min(self.choices))


def between(graph: Graph, low: Chosen, high: Chosen, available: int) -> dict[str, Option]:
    """Return `low`, which fits, with as much of `high` as fits: what hangs together comes whole, then whatever else fits.

    Both keep the ties of the graph. Nothing that the answer gives up can be undone by itself.
    """
    chosen, cost = dict(low), cost_of(low)
    for bundle in sorted(_bundles(graph, low, high), key=lambda each: each.rank):
        if cost + bundle.cost <= available:
            chosen |= bundle.choices
            cost += bundle.cost
    return fill(graph, chosen, available)


def _bundles(graph: Graph, low: Chosen, high: Chosen) -> Iterator[_Bundle]:
    """Yield what `high` has more than `low`: nodes that run more by the graph's edges, all others one by one."""
    more = {id_ for id_, option in low.items() if option.choice == SKIP and high[id_].choice != SKIP}
    seen: set[str] = set()
    for first in graph.nodes:
        if first in more and first not in seen:
            seen.add(first)
            together = [first]
            for id_ in together:
                for other in (*graph.parents[id_], *graph.children[id_]):
                    if other in more and other not in seen:
                        seen.add(other)
                        together.append(other)
            yield _bundle(low, {id_: high[id_] for id_ in together})
        elif first not in more and low[first].choice != SKIP and high[first].value > low[first].value:
            yield _bundle(low, {first: high[first]})


def _bundle(now: Chosen, choices: dict[str, Option]) -> _Bundle:
    gain = sum(option.value - now[id_].value for id_, option in choices.items())
    return _Bundle(choices, gain, sum(option.cost - now[id_].cost for id_, option in choices.items()))


def fill(graph: Graph, chosen: dict[str, Option], available: int) -> dict[str, Option]:
    """Return a plan that fits with everything given back that still fits; the plan that is passed in is used up."""
    filling = _Filling(graph, chosen, available - cost_of(chosen))
    while filling.round():
        pass
    return chosen


class _Filling:
    """A plan with the money that is left of it."""

    def __init__(self, graph: Graph, chosen: dict[str, Option], left: int) -> None:
        self.graph = graph
        self.chosen = chosen
        self.left = left
        self.skipped = {id_ for id_, option in chosen.items() if option.choice == SKIP}
        self.least = {id_: _cheapest(graph.options[id_]) for id_ in self.skipped}
        self.ties = {id_: graph.ties(id_) for id_ in self.skipped}

    def round(self) -> bool:
        """Give back whatever fits, in the order of its rank when the round begins; False when nothing did."""
        lowered = [id_ for id_, option in self.chosen.items() if option.choice != AS_IS]
        ranks = [(step.rank[0], id_) for id_ in lowered if (step := self._step(id_))]
        for _, id_ in sorted(ranks):
            # What was taken before may have changed what this one costs, or have brought it back.
            if bundle := self._step(id_):
                self.chosen |= bundle.choices
                self.skipped.difference_update(bundle.choices)
                self.left -= bundle.cost
        return bool(ranks)

    def _step(self, id_: str) -> _Bundle | None:
        """Return the most that can be given back to a node now, with what it cannot run without, if that fits."""
        now = self.chosen[id_]
        together = self._missing(id_) if id_ in self.skipped else [id_]
        if len(together) > 1:
            bundle = _bundle(self.chosen, {each: self.graph.options[each][0] for each in together})
            return bundle if bundle.cost <= self.left else _bundle(self.chosen, {each: self.least[each] for each in together})
        # Among equals the unchanged one, which is first in the list.
        better = [
            option
            for option in self.graph.options[id_]
            if option.cost - now.cost <= self.left and option.choice != now.choice and (option.value > now.value or option.choice == AS_IS)
        ]
        if not together or not better:
            return None
        return _bundle(self.chosen, {id_: max(better, key=lambda option: option.value)})

    def _missing(self, id_: str) -> list[str]:
        """Return a skipped node with the skipped ones that have to run for it; nothing where they do not fit, or are too many."""
        together, least = [id_], self.least[id_].cost
        for each in together:
            if least > self.left or len(together) > _BUNDLE_MAX:
                return []
            tie = self.ties[each]
            wanted = [need for need in tie.all_of if need in self.skipped]
            if tie.any_of and all(feeder in self.skipped and feeder not in together for feeder in tie.any_of):
                wanted.append(min(tie.any_of, key=lambda feeder: (self.least[feeder].cost, feeder)))
            for need in wanted:
                if need not in together:
                    together.append(need)
                    least += self.least[need].cost
        return together if least <= self.left else []


def _cheapest(options: Sequence[Option]) -> Option:
    return min((option for option in options if option.choice != SKIP), key=lambda option: (option.cost, -option.value))
