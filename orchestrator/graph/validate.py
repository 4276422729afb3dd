"""Everything that can be wrong with a graph as a whole, found at once and in linear time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cost.money import MICROS_MAX

from .branches import DEPTH_MAX, gates
from .cycles import cycles, path_of
from .fields import ITEMS_MAX, least_of
from .limits import PROBLEMS_MAX, Limits
from .model import Node
from .params import inspect_params
from .references import Reference, printed
from .wording import Suggestions, counted

if TYPE_CHECKING:
    from orchestrator.registry import Registry, TaskDefinition


@dataclass(frozen=True, slots=True)
class Entry:
    """One node as it stands in the list; `named` and `tasked` tell whether its id and task can be relied on."""

    index: int
    label: str
    node: Node
    named: bool
    tasked: bool

    @classmethod
    def of(cls, index: int, node: Node) -> Entry:
        return cls(index, f"node {node.id!r}", node, named=True, tasked=True)


def bounded(problems: Iterable[str]) -> tuple[str, ...]:
    """Return the problems; beyond the first thousand only their number, because a refusal must not be larger than its cause."""
    found = list(problems)
    if len(found) <= PROBLEMS_MAX:
        return tuple(found)
    return (*found[:PROBLEMS_MAX], f"and {counted(len(found) - PROBLEMS_MAX, 'more problem')}")


def validate(
    name: str,
    entries: Sequence[Entry],
    limits: Limits,
    registry: Registry | None = None,
    served: Collection[str] | None = None,
    words: Suggestions | None = None,
    *,
    elsewhere: bool = False,
) -> Iterator[str]:
    """Yield one sentence for each problem, in the order of the nodes; those of the whole graph come last.

    elsewhere: whether a task that is neither registered nor served may exist all the same.
    """
    return _Validation(name, entries, limits, registry, served, words or Suggestions(), elsewhere=elsewhere).problems()


class _Validation:
    def __init__(
        self,
        name: str,
        entries: Sequence[Entry],
        limits: Limits,
        registry: Registry | None,
        served: Collection[str] | None,
        words: Suggestions,
        *,
        elsewhere: bool,
    ) -> None:
        self.name, self.entries, self.limits, self.words = name, entries, limits, words
        self.registry = registry
        # Tasks are looked up where somebody said what there is; sets, because each node asks.
        open_world = elsewhere or (registry is None and served is None)
        self.tasks = None if open_world else {*(served or ()), *(registry.names() if registry else ())}
        self.nodes: dict[str, Node] = {}
        self.twins: dict[str, list[int]] = {}
        for entry in entries:
            if entry.named:
                self.nodes.setdefault(entry.node.id, entry.node)
                self.twins.setdefault(entry.node.id, []).append(entry.index)
        self.parents: dict[str, dict[str, None]] = {id_: {} for id_ in self.nodes}
        self.bare: list[tuple[str, Reference, str]] = []
        self.edges = 0
        self.micros = 0

    def problems(self) -> Iterator[str]:
        if len(self.entries) > self.limits.nodes:
            yield f"graph: {len(self.entries):,} nodes are more than the limit of {self.limits.nodes:,}; split the graph or raise the limit"
            return
        for entry in self.entries:
            for sentence in self._entry(entry):
                yield f"{entry.label}: {sentence}"
        yield from self._whole()

    def _whole(self) -> Iterator[str]:
        if self.edges > self.limits.edges:
            yield f"graph: {self.edges:,} edges are more than the limit of {self.limits.edges:,}; split the graph or raise the limit"
        if self.micros > MICROS_MAX:
            yield f"graph: the estimates add up to {self.micros} micros; all nodes together can take {MICROS_MAX}"
        yield from self._item_ids()
        yield from self._branches()
        for cycle in cycles({node: tuple(before) for node, before in self.parents.items()}):
            yield f"cycle: {path_of(cycle)}; remove one of these edges"

    def _branches(self) -> Iterator[str]:
        """A node cannot count on the result of one that may not be taken while it is itself."""
        conditional = {id_ for id_, node in self.nodes.items() if node.when is not None}
        if not conditional:
            return
        found = gates(self.parents, conditional)
        for id_, reference, whose in self.bare:
            mine, theirs = found.get(id_), found.get(reference.node)
            if mine is not None and theirs is not None and not theirs <= mine:
                yield (
                    f"node {id_!r}: {whose}`{printed(reference.path)}` refers to node {reference.node!r}, which may not be taken where "
                    "this node is; give the reference a default"
                )
        for id_, above in found.items():
            if len(above) > DEPTH_MAX and id_ in conditional:
                yield f"node {id_!r}: it stands under {len(above)} conditions, one behind the other; {DEPTH_MAX} are the most"
                return

    def _item_ids(self) -> Iterator[str]:
        """Items of a map are nodes with ids of their own."""
        for id_ in self.nodes:
            above, _, last = id_.rpartition(".")
            if last.isdecimal() and (parent := self.nodes.get(above)) is not None and parent.map is not None:
                yield f"node {id_!r}: an item of the map {above!r} has this id; choose another"

    def _map(self, node: Node) -> Iterator[str]:
        if node.map is None:
            for name in ("max_items", "expected_items"):
                if name in node.model_fields_set:
                    yield f"`{name}` is for a node with a map; leave it out, or give it one"
            return
        if isinstance(node.map, list) and len(node.map) > node.max_items:
            yield (
                f"its map has {counted(len(node.map), 'item')}, and its max_items is {node.max_items:,}; "
                f"raise max_items ({ITEMS_MAX:,} at most), or split the list"
            )
        most = min(len(node.map), node.max_items) if isinstance(node.map, list) else node.max_items
        if (least := least_of(node.join)) is not None and least > most:
            yield f"its join {node.join!r} asks for more successes than the {counted(most, 'item')} that there can be; ask for fewer"

    def _join(self, node: Node, before: Mapping[str, None]) -> Iterator[str]:
        least = least_of(node.parents_join)
        if least is not None and least > len(before):
            yield (
                f"its join {node.join!r} asks for more successes than the {counted(len(before), 'node')} that it waits for can have; "
                "ask for fewer"
            )

    def _entry(self, entry: Entry) -> Iterator[str]:
        node = entry.node
        if entry.named and (same := self.twins[node.id])[0] == entry.index and len(same) > 1:
            places = ", ".join(f"nodes[{i}]" for i in same[:5]) + (", ..." if len(same) > 5 else "")
            yield f"duplicate id, given to {counted(len(same), 'node')} ({places}); give each node its own"
        found, wrong = inspect_params(node.params, self.limits, self.words, mapped=node.map is not None)
        yield from wrong
        if node.map is not None:
            mapped, amiss = inspect_params({"map": node.map}, self.limits, self.words)
            found += mapped
            yield from amiss
        yield from self._map(node)
        asked = [node.when.ref] if node.when is not None else []
        before = dict.fromkeys([*(reference.node for reference in found), *asked, *node.after])
        yield from self._edges(entry, found, before)
        yield from self._join(node, before)
        definition = self.registry.get(node.task) if self.registry is not None and entry.tasked else None
        known = node if definition is None else node.resolved(definition)
        self.micros += known.width * sum(known.estimate.values())
        if known.max_cost is not None and sum(known.estimate.values()) > known.max_cost:
            yield f"its estimate of {sum(known.estimate.values())} micros is above its max_cost of {known.max_cost}; raise max_cost"
        if entry.tasked:
            yield from self._task(node.task, "")
            if definition is not None and not wrong:
                yield from definition.problems(node.params, self.words)
        yield from self._variants(entry, known, definition, before, params_ok=not wrong)

    def _edges(self, entry: Entry, found: Sequence[Reference], before: Mapping[str, None]) -> Iterator[str]:
        node = entry.node
        self.edges += len(before)
        if entry.named:
            self.parents[node.id] |= before
        unknown = [parent for parent in before if parent not in self.nodes]
        for parent in unknown:
            otherwise = "`when`" if node.when is not None and node.when.ref == parent else "`after`"
            where = next((f"`{printed(r.path)}`" for r in found if r.node == parent), otherwise)
            remedy = self.words.did_you_mean(parent, self.nodes, "name a node of this graph")
            yield f"{where} refers to {_cut(parent)}, which is not a node; {remedy}"
        if entry.named and node.id in before:
            yield f"self-loop: {node.id} -> {node.id}; a node cannot wait for itself, refer to another node"
        for reference in found:
            yield from self._bare(entry, reference, "")

    def _bare(self, entry: Entry, reference: Reference, whose: str) -> Iterator[str]:
        """A required node cannot count on an optional one, nor on any if its join does not."""
        node, parent = entry.node, self.nodes.get(reference.node)
        if not reference.bare or parent is None:
            return
        if node.required and node.parents_join != "all_succeeded":
            yield (
                f"{whose}its join {node.join!r} does not wait for a result of {parent.id!r}, to which `{printed(reference.path)}` refers; "
                "give the reference a default"
            )
        elif node.required and not parent.required:
            yield (
                f"{whose}it is required, and `{printed(reference.path)}` refers to the optional node {parent.id!r}, which may have "
                "no result; give the reference a default, or make this node optional or that one required"
            )
        elif entry.named:
            self.bare.append((node.id, reference, whose))

    def _task(self, task: str, whose: str) -> Iterator[str]:
        if self.tasks is not None and task not in self.tasks:
            remedy = self.words.did_you_mean(task, self.tasks, "load the module that defines it, or correct the name")
            yield f"{whose}unknown task {_cut(task)}; {remedy}"

    def _variants(
        self, entry: Entry, node: Node, definition: TaskDefinition | None, before: Mapping[str, None], *, params_ok: bool
    ) -> Iterator[str]:
        names: set[str] = set()
        for variant in node.variants:
            whose = f"variant {variant.name!r}: "
            if variant.name in names:
                yield f"{whose}duplicate name; give each variant of a node its own"
            names.add(variant.name)
            if variant.kind == "variant" and variant.task is None and not variant.params:
                yield f"{whose}it changes nothing; give it a task or params"
            if variant.kind != "variant" and variant.task is not None:
                yield f"{whose}kind {variant.kind} changes params and cannot name a task; use kind variant"
            if variant.kind != "variant" and not variant.params:
                yield f"{whose}kind {variant.kind} changes nothing without params; give it params"
            found, wrong = inspect_params(variant.params, self.limits, self.words, mapped=node.map is not None)
            yield from (f"{whose}{sentence}" for sentence in wrong)
            for reference in found:
                if reference.node not in before:
                    where = f"`{printed(reference.path)}` refers to {_cut(reference.node)}"
                    yield f"{whose}{where}, which the node does not wait for; add it to `after`"
                yield from self._bare(entry, reference, whose)
            if variant.task is not None:
                yield from self._task(variant.task, whose)
            other = self.registry.get(variant.task) if variant.task is not None and self.registry is not None else definition
            if other is not None and other is not definition:
                yield from (f"{whose}{sentence}" for sentence in self._borrowed(node, definition, other))
            if other is not None and params_ok and not wrong:
                params: dict[str, Any] = {**node.params, **variant.params}
                already = set(other.problems(node.params)) if other is definition else set()
                yield from (f"{whose}{sentence}" for sentence in other.problems(params, self.words) if sentence not in already)

    def _borrowed(self, node: Node, definition: TaskDefinition | None, other: TaskDefinition) -> Iterator[str]:
        """A message goes by its node's own task, whichever variant is chosen in the end: pool and limits are that task's."""
        if other.pool is not None and other.pool != node.pool:
            where = f"in pool {node.pool!r}" if node.pool else "wherever its tenant's nodes do"
            yield f"task {other.name!r} is pinned to pool {other.pool!r}, and the node runs {where}; give the node pool {other.pool!r}"
        held = {limit.key for limit in self.registry.limits_of(definition.name)} if self.registry and definition else set()
        for limit in other.limits if definition is not None else ():
            if limit.key not in held:
                yield (
                    f"task {other.name!r} has the limit {limit.key!r}, which would not hold here, because {node.task!r} has not; "
                    f"declare the variant with the task {node.task!r}, or give that task the limit too"
                )


def _cut(text: str) -> str:
    return repr(text) if len(text) <= 100 else repr(text[:60] + "...")
