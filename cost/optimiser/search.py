"""The exact search: the best plan of a small graph, or the news that finding it takes too much work."""

from __future__ import annotations

from typing import Final, NamedTuple

from cost.node_cost import SKIP, Option
from cost.optimiser.graph import Graph

# Work of the search in partial plans. A count, so that a plan can be recomputed.
STATES_MAX: Final = 20_000


class _State(NamedTuple):
    """A plan for the first nodes; the smaller is the better, and comparison is by these fields in this order."""

    lost: int
    changes: int
    cost: int
    picks: tuple[int, ...]


def search(graph: Graph, available: int, value_known: int) -> dict[str, Option] | None:
    """Return the best plan that fits, or None if finding it takes more than STATES_MAX partial plans.

    Goes through the nodes in topological order and keeps, for each set of skipped nodes that later ones can still
    notice, the plans that no other one beats in both value and cost. A plan that can no longer fit, or that has lost
    more than a plan that is known, is dropped.
    """
    order = [id_ for id_, options in graph.options.items() if len(options) > 1]
    bit = {id_: 1 << index for index, id_ in enumerate(order)}
    cheapest = [min(option.cost for option in graph.options[id_]) for id_ in order]
    spent = sum(options[0].cost for options in graph.options.values() if len(options) == 1)
    rest = available - spent - sum(cheapest)
    lost_max = sum(node.value for node in graph.nodes.values()) - value_known
    # Sets of skipped nodes are bits of an int: who feeds a node, and whom a later node can still notice.
    noticed = [0] * len(order)
    for index, id_ in enumerate(order):
        last = max((bit[child].bit_length() - 1 for child in graph.children[id_] if child in bit), default=0)
        for step in range(index, last):
            noticed[step] |= bit[id_]
    states: dict[int, list[_State]] = {0: [_State(0, 0, 0, ())]}
    work = 0
    for index, id_ in enumerate(order):
        rest += cheapest[index]
        feeders = sum(bit.get(parent, 0) for parent in graph.parents[id_])
        only_fed = not graph.nodes[id_].fed and bool(feeders) and all(parent in bit for parent in graph.parents[id_])
        needs = sum(bit.get(need, 0) for need in set(graph.nodes[id_].needs))
        options = list(enumerate(graph.options[id_]))
        later: dict[int, list[_State]] = {}
        for skipped, plans in states.items():
            forced = (only_fed and feeders & skipped == feeders) or bool(needs & skipped)
            for pick, option in options[-1:] if forced and not graph.nodes[id_].required else options:
                key = (skipped | bit[id_] if option.choice == SKIP else skipped) & noticed[index]
                lost, change = graph.nodes[id_].value - option.value, int(pick > 0)
                bucket = later.setdefault(key, [])
                work += len(plans)
                for plan in plans:
                    if plan.lost + lost <= lost_max and plan.cost + option.cost <= rest:
                        # A changed node sorts before an unchanged one, so that among equals the first id gives up.
                        bucket.append(_State(plan.lost + lost, plan.changes + change, plan.cost + option.cost, (*plan.picks, -pick)))
            if work > STATES_MAX:
                return None
        states = {key: _undominated(bucket) for key, bucket in later.items() if bucket}
    best = min((plan for plans in states.values() for plan in plans), default=None)
    if best is None:
        return None
    chosen = {id_: graph.options[id_][-pick] for id_, pick in zip(order, best.picks, strict=True)}
    return {id_: chosen.get(id_) or options[0] for id_, options in graph.options.items()}


def _undominated(plans: list[_State]) -> list[_State]:
    kept: list[_State] = []
    for plan in sorted(plans):
        if not kept or plan.cost < kept[-1].cost:
            kept.append(plan)
    return kept
