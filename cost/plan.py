"""Planning a run down: the choices that keep the most value of a graph within an amount of money."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .money import check_micros

AS_IS: Final = "as_is"
SKIP: Final = "skip"

# Work of the exact search in partial plans; past it the greedy plan stands. A count, so that a plan can be recomputed.
STATES_MAX: Final = 20_000

# A skip whose closure is larger waits until what it feeds was skipped; bounds one step on long optional chains.
_CLOSURE_MAX: Final = 50


class VariantCost(NamedTuple):
    """A cheaper way to run a node; `kind` is generation, retrieval or variant."""

    name: str
    kind: str
    estimate_micros: int
    value: int


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What a pending node costs, is worth, and could be given up for.

    `children` are the ids it feeds. `needs` are the parents whose result it takes without a default: an optional
    node cannot run without them. `max_cost` is what a strict tenant reserves; plans work on estimates. `fed` says that something
    that is not among the nodes of the plan feeds it as well: it ran, or runs.
    """

    id: str
    required: bool
    value: int
    estimate_micros: int
    max_cost: int | None = None
    variants: Sequence[VariantCost] = ()
    children: Sequence[str] = ()
    needs: Sequence[str] = ()
    fed: bool = False

    def __post_init__(self) -> None:
        check_micros(self.estimate_micros, f"estimate of {self.id}")
        check_micros(self.value, f"value of {self.id}")
        names = [AS_IS, SKIP]
        for variant in self.variants:
            check_micros(variant.estimate_micros, f"estimate of {self.id}, variant {variant.name}")
            check_micros(variant.value, f"value of {self.id}, variant {variant.name}")
            names.append(variant.name)
        if len(set(names)) < len(names):
            raise ValueError(f"node {self.id!r} has a variant whose name is taken, or is {AS_IS} or {SKIP}")


class Modification(NamedTuple):
    """One thing given up: `type` is skip or the kind of the variant, `change` the choice that replaces "as_is"."""

    type: str
    node: str
    change: str
    reason: str
    estimated_saving_micros: int


@dataclass(frozen=True, slots=True)
class PlanDown:
    """One choice for every node; `fits` is False when even the cheapest plan, which this then is, costs too much.

    `exact` says that no other plan that fits keeps more value (ties: fewer nodes changed, then cheaper).
    """

    choices: Mapping[str, str]
    cost_micros: int
    value: int
    modifications: tuple[Modification, ...]
    fits: bool
    exact: bool = True


class _Option(NamedTuple):
    choice: str
    kind: str
    cost: int
    value: int


@dataclass(slots=True)
class _Graph:
    """The nodes in topological order (ties by id), what each may choose, and who feeds whom."""

    nodes: dict[str, NodeCost]
    options: dict[str, list[_Option]] = field(default_factory=dict)
    parents: dict[str, list[str]] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Iterable[NodeCost]) -> _Graph:
        given = {node.id: node for node in nodes}
        parents: dict[str, list[str]] = {id_: [] for id_ in given}
        fed = {id_: {child for child in node.children if child in given} for id_, node in given.items()}
        for id_, node in given.items():
            for need in node.needs:
                if need in given:
                    fed[need].add(id_)
        children = {id_: sorted(ids) for id_, ids in fed.items()}
        for id_ in sorted(given):
            for child in children[id_]:
                parents[child].append(id_)
        waiting = {id_: len(feeders) for id_, feeders in parents.items()}
        ready = sorted(id_ for id_, count in waiting.items() if not count)
        order: dict[str, NodeCost] = {}
        while ready:
            id_ = heapq.heappop(ready)
            order[id_] = given[id_]
            for child in children[id_]:
                waiting[child] -= 1
                if not waiting[child]:
                    heapq.heappush(ready, child)
        if len(order) < len(given):
            raise ValueError(f"the nodes {sorted(given.keys() - order.keys())[:5]} wait for each other")
        return cls(order, {id_: _options(node) for id_, node in order.items()}, parents, children)

    def forced(self, id_: str, skipped: Mapping[str, object] | frozenset[str] | set[str]) -> bool:
        """Whether an optional node cannot or need not run, because of what is skipped before it."""
        node = self.nodes[id_]
        if node.required:
            return False
        feeders = self.parents[id_]
        alone = not node.fed and bool(feeders) and all(parent in skipped for parent in feeders)
        return alone or any(need in skipped for need in node.needs)


def _options(node: NodeCost) -> list[_Option]:
    """What a node may choose, the unchanged one first; a variant that saves nothing is none."""
    options = [_Option(AS_IS, AS_IS, node.estimate_micros, node.value)]
    # A cheaper variant declared to be worth more is worth as much: nothing is changed without need.
    options.extend(
        _Option(variant.name, variant.kind, variant.estimate_micros, min(variant.value, node.value))
        for variant in node.variants
        if variant.estimate_micros < node.estimate_micros
    )
    if not node.required:
        options.append(_Option(SKIP, SKIP, 0, 0))
    return options


def solver() -> str:
    """Return what makes the plans, with its version: another one may plan otherwise."""
    return "greedy/1"


def floor(nodes: Iterable[NodeCost]) -> int:
    """Return the micros of the cheapest plan that still runs every required node; optional nodes cost nothing in it."""
    return sum(min(option.cost for option in _options(node)) for node in nodes)


def plan_down(nodes: Iterable[NodeCost], available_micros: int) -> PlanDown:
    """Return the plan that keeps the most value for `available_micros`, changing nothing when everything fits.

    Required nodes always run. Skipping an optional node also skips the optional nodes that only it feeds; what else
    it feeds receives its defaults. The search is exact as long as it stays below a fixed amount of work, as it does
    for a dozen nodes that could be changed; otherwise the plan gives up the least value per micro saved, step by
    step, and takes back what turned out not to be necessary. Ties are broken by node id, so the same input gives
    the same plan. Raises ValueError for a cycle or an amount out of range.
    """
    check_micros(available_micros, "available money")
    graph = _Graph.of(nodes)
    greedy = _Greedy(graph)
    full = greedy.cost
    if full <= available_micros:
        return _plan(graph, greedy.chosen, available_micros, full, exact=True)
    greedy.reduce(available_micros)
    if greedy.cost > available_micros:
        return _plan(graph, greedy.chosen, available_micros, full, exact=True)
    greedy.give_back(available_micros)
    best = _search(graph, available_micros, sum(option.value for option in greedy.chosen.values()))
    return _plan(graph, greedy.chosen if best is None else best, available_micros, full, exact=best is not None)


def _plan(graph: _Graph, chosen: Mapping[str, _Option], available: int, full: int, *, exact: bool) -> PlanDown:
    skipped = {id_ for id_, option in chosen.items() if option.choice == SKIP}
    modifications = []
    for id_ in sorted(chosen):
        option, estimate = chosen[id_], graph.nodes[id_].estimate_micros
        if option.choice != AS_IS:
            reason = f"everything would cost {full} micros, and {available} are available"
            if id_ in skipped and graph.forced(id_, skipped):
                reason = "what feeds it is skipped"
            modifications.append(Modification(option.kind, id_, option.choice, reason, estimate - option.cost))
    cost = sum(option.cost for option in chosen.values())
    value = sum(option.value for option in chosen.values())
    choices = {id_: option.choice for id_, option in chosen.items()}
    return PlanDown(choices, cost, value, tuple(modifications), cost <= available, exact)


class _Ratio(NamedTuple):
    """Value lost per micro saved; compared as fractions of integers, then by node id."""

    lost: int
    saved: int
    id_: str

    def __lt__(self, other: tuple[object, ...]) -> bool:
        assert isinstance(other, _Ratio)
        ours, theirs = self.lost * other.saved, other.lost * self.saved
        return ours < theirs if ours != theirs else self.id_ < other.id_


class _Greedy:
    """A plan that is reduced step by step, and given back where that still fits."""

    def __init__(self, graph: _Graph) -> None:
        self.graph = graph
        self.chosen = {id_: options[0] for id_, options in graph.options.items()}
        self.skipped: set[str] = set()
        self.cost = sum(option.cost for option in self.chosen.values())

    def reduce(self, available: int) -> None:
        """Take the step that loses the least value per micro saved, until the plan fits or nothing is left to save."""
        heap = [step[0] for id_ in self.chosen if (step := self._step(id_))]
        heapq.heapify(heap)
        while heap and self.cost > available:
            ratio = heapq.heappop(heap)
            step = self._step(ratio.id_)
            if step is None:
                continue
            # Steps change when others are taken; one that became worse waits for its turn.
            if ratio < step[0]:
                heapq.heappush(heap, step[0])
                continue
            _, option, closure = step
            self._choose(ratio.id_, option)
            for id_ in closure:
                self._choose(id_, self.graph.options[id_][-1])
            again = {ratio.id_}
            if option.choice == SKIP:
                again.update(parent for id_ in (ratio.id_, *closure) for parent in self.graph.parents[id_])
            for id_ in sorted(again):
                if fresh := self._step(id_):
                    heapq.heappush(heap, fresh[0])

    def give_back(self, available: int) -> None:
        """Undo what the money still allows, most valuable first, until nothing can be undone."""
        changed = True
        while changed:
            changed = False
            lost = {id_: self.graph.nodes[id_].value - option.value for id_, option in self.chosen.items() if option.choice != AS_IS}
            for id_ in sorted(lost, key=lambda id_: (-lost[id_], id_)):
                now = self.chosen[id_]
                if id_ in self.skipped and self.graph.forced(id_, self.skipped):
                    continue
                # Among equals the unchanged one, which is first in the list.
                fitting = [option for option in self.graph.options[id_] if self.cost - now.cost + option.cost <= available]
                better = [option for option in fitting if option.value > now.value or option.choice == AS_IS]
                if better:
                    self._choose(id_, max(better, key=lambda option: option.value))
                    changed = True

    def _choose(self, id_: str, option: _Option) -> None:
        self.cost += option.cost - self.chosen[id_].cost
        self.chosen[id_] = option
        if option.choice == SKIP:
            self.skipped.add(id_)
        else:
            self.skipped.discard(id_)

    def _step(self, id_: str) -> tuple[_Ratio, _Option, list[str]] | None:
        """Return the best way to make this node cheaper now, with what is skipped along with it."""
        now, best = self.chosen[id_], None
        for option in self.graph.options[id_]:
            closure: list[str] = []
            if option.choice == SKIP:
                if id_ in self.skipped or (found := self._closure(id_)) is None:
                    continue
                closure = found
            saved = now.cost - option.cost + sum(self.chosen[c].cost for c in closure)
            lost = now.value - option.value + sum(self.chosen[c].value for c in closure)
            if saved > 0 and id_ not in self.skipped:
                ratio = _Ratio(max(lost, 0), saved, id_)
                if best is None or ratio < best[0]:
                    best = (ratio, option, closure)
        return best

    def _closure(self, id_: str) -> list[str] | None:
        """Return what else is skipped with `id_`, or None if that is too much for one step."""
        gone = [id_]
        self.skipped.add(id_)
        for parent in gone:
            for child in self.graph.children[parent]:
                if child not in self.skipped and self.graph.forced(child, self.skipped):
                    self.skipped.add(child)
                    gone.append(child)
            if len(gone) > _CLOSURE_MAX:
                break
        self.skipped.difference_update(gone)
        return None if len(gone) > _CLOSURE_MAX else gone[1:]


class _State(NamedTuple):
    """A plan for the first nodes; the smaller is the better, and comparison is by these fields in this order."""

    lost: int
    changes: int
    cost: int
    picks: tuple[int, ...]


def _search(graph: _Graph, available: int, value_known: int) -> dict[str, _Option] | None:
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
