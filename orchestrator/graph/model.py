"""The graph: what a producer asks for, frozen, the same whether it came from Python or from JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tenancy.errors import GraphInvalid, HeadgateError

from .fields import (
    Attempts,
    Estimate,
    Identifier,
    Items,
    Join,
    Kind,
    Labels,
    Mapped,
    MaxParallel,
    Micros,
    OnFailure,
    Params,
    Parents,
    PoolName,
    PriorityName,
    TaskName,
    TimeoutS,
    Value,
    When,
    listed,
)
from .limits import DEFAULT_LIMITS, Limits
from .references import references

if TYPE_CHECKING:
    from orchestrator.local import LocalRun
    from orchestrator.registry import Registry, TaskDefinition


class _Frozen(BaseModel):
    # Nothing is coerced: true is not 1, 1.0 is not 1, "3" is not 3.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)


class Variant(_Frozen):
    """A cheaper way to run a node: other parameters, or another task."""

    name: Identifier
    """Unique within the node."""
    kind: Kind
    """generation and retrieval change parameters; variant may also name another task."""
    params: Params = {}
    """Laid over the node's params, key by key."""
    task: TaskName | None = None
    """Another task, which gets the same params; only for kind variant."""
    estimate: Estimate
    """Expected cost in micros by category."""
    value: Value
    """What the result is worth this way, against the node's own value."""


#: Where a node says nothing, its task's definition is asked; these four are what it may answer.
FALLBACKS = ("estimate", "value", "variants", "max_cost")


class Node(_Frozen):
    """One task to run once, with what it takes from whom."""

    id: Identifier
    """Unique within the graph."""
    task: TaskName
    """The task's name in Celery."""
    params: Params = {}
    """Parameters by name. `{"$ref": "x"}` anywhere inside is node x's result; "default" beside it stands in where x has none."""
    after: Parents = ()
    """Ids of nodes that must have ended before, beside those that params refer to."""
    required: bool = True
    """Whether the run fails with this node; an optional node may be skipped."""
    value: Value = 1
    """What the node is worth when not everything can be paid for. Unset: the task's definition, else 1."""
    estimate: Estimate = {"compute": 1000}
    """Expected cost in micros by category. Unset: the task's definition, else 1000 micros of compute."""
    max_cost: Micros | None = None
    """Most that one execution may cost, in micros; what strict tenants reserve. Unset: the task's definition, else none."""
    variants: Annotated[tuple[Variant, ...], BeforeValidator(listed)] = ()
    """Cheaper ways to run the node. Unset: the task's definition, else none."""
    priority: PriorityName | None = None
    """Order of work inside the tenant; null is the run's priority, else the tenant's default."""
    timeout_s: TimeoutS = 300
    """Seconds an attempt may take."""
    attempts: Attempts = 3
    """How many attempts may fail, the first included."""
    join: Join = "all_succeeded"
    """When the node is due: after all its parents succeeded, skipped optional ones passed over; all_done: whatever became of them;
    at_least(n): at the n-th success, while the others run on."""
    when: When | None = None
    """The node runs only if this holds: {"$ref": "x", "equals": value}, or "not_equals", or "in" with a list. Makes x a parent."""
    labels: Labels = {}
    """Texts for people and searches; nothing acts on them."""
    pool: PoolName | None = None
    """The workers that may run it; null is the task's pool, else the tenant's."""
    map: Mapped = None
    """A list, or a reference to one: the task runs once for each item, `{"$item": true}` in params, and the result is the list of theirs.
    The node waits for its parents as all_succeeded does; `join` is over its items, which are nodes `id.0`, `id.1`.."""
    max_items: Items = 1_000
    """More items than this fail the node."""
    expected_items: Items = 10
    """How many items are counted before the list is known, for admission, estimates and plans."""

    def parents(self) -> tuple[str, ...]:
        """Return the ids this node waits for: those in params by path, of `map`, that of `when`, then `after`; each once."""
        asked = [self.when.ref] if self.when is not None else []
        mapped = references({"map": self.map}) if self.map is not None else ()
        return tuple(dict.fromkeys([*(r.node for r in references(self.params)), *(r.node for r in mapped), *asked, *self.after]))

    @property
    def parents_join(self) -> str:
        """By which rule the node waits for its parents; that of a map is over its items."""
        return self.join if self.map is None else "all_succeeded"

    @property
    def width(self) -> int:
        """How many executions the node counts for, before it is known how many items there are."""
        if self.map is None:
            return 1
        return len(self.map) if isinstance(self.map, list) else min(self.expected_items, self.max_items)

    def reads(self) -> frozenset[str]:
        """Return the ids whose results this node, or a variant of it, takes or asks about."""
        asked = [self.when.ref] if self.when is not None else []
        taken = (
            r.node for params in (self.params, {"map": self.map}, *(v.params or {} for v in self.variants)) for r in references(params)
        )
        return frozenset([*asked, *taken])

    def resolved(self, definition: TaskDefinition | None) -> Node:
        """Return the node with all of estimate, value, variants and max_cost said, by itself or its task, and pinned as its task is."""
        said = {name: getattr(definition or self, name) for name in FALLBACKS if name not in self.model_fields_set}
        if self.pool is None and definition is not None and definition.pool is not None:
            said["pool"] = definition.pool
        return self.model_copy(update=said) if said else self


class Graph(_Frozen):
    """A directed acyclic graph of nodes; JSON is its public form.

    Constructing one checks the shape of each field; `check` checks what only the whole shows; `parse` does both.
    """

    name: Identifier
    """What runs of this graph are filed under."""
    nodes: Annotated[tuple[Node, ...], BeforeValidator(listed), Field(min_length=1)]
    """In any order: edges order the work."""
    labels: Labels = {}
    """Texts for people and searches; nothing acts on them."""
    max_parallel: MaxParallel | None = None
    """How many nodes of a run may be in workers' hands at once; null is as many as there are slots."""
    on_failure: OnFailure = "finish"
    """What a required node that failed or timed out means for the run: finish what does not depend on it, or stop what has not begun."""

    @staticmethod
    def parse(
        source: str | bytes | Mapping[str, Any],
        limits: Limits = DEFAULT_LIMITS,
        *,
        registry: Registry | None = None,
        served: Collection[str] | None = None,
    ) -> Graph:
        """Return the graph in JSON text, UTF-8 bytes or an object of plain Python values.

        registry, served: as for `problems`; without both, tasks are not looked up.
        Raises GraphInvalid with every problem, one sentence each.
        """
        from .parse import parse

        graph, problems = parse(source, limits, registry, served)
        if graph is None or problems:
            raise GraphInvalid(problems)
        return graph

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the public form."""
        from .schema import json_schema

        return json_schema(cls)

    def problems(
        self, *, registry: Registry | None = None, served: Collection[str] | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> tuple[str, ...]:
        """Return what is wrong with the graph as a whole, one sentence each; empty where nothing is.

        registry: definitions known here; parameters are checked against their signatures. served: names of tasks that exist
        elsewhere (what live workers serve). A task in neither is unknown; without both, tasks are not looked up.
        """
        from .validate import Entry, bounded, validate

        entries = [Entry.of(index, node) for index, node in enumerate(self.nodes)]
        return bounded(validate(self.name, entries, limits, registry, served))

    def check(self, *, registry: Registry | None = None, served: Collection[str] | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        """Raise GraphInvalid with all of `problems` where there are any."""
        if problems := self.problems(registry=registry, served=served, limits=limits):
            raise GraphInvalid(problems)

    def resolved(self, registry: Registry) -> Graph:
        """Return the graph with what nodes left to their tasks' definitions filled in, so that it means the same anywhere."""
        return self.evolve(nodes=tuple(node.resolved(registry.get(node.task)) for node in self.nodes))

    def evolve(self, **changes: Any) -> Graph:
        """Return the graph with some of its fields changed, such as `max_parallel`.

        Raises GraphInvalid with a sentence for each field that does not fit.
        """
        # Not `model_copy`, which checks nothing and takes the digest along that was asked for before.
        said = {name: getattr(self, name) for name in self.model_fields_set} | changes
        try:
            return Graph.model_validate(said)
        except ValidationError as error:
            from .parse import sentences
            from .wording import Suggestions

            raise GraphInvalid(tuple(sentences(error, "graph", "graph", Suggestions())[0])) from None

    def run_local(self, *, budget: str | int | None = None, tenant: str = "default") -> LocalRun:
        """Run the graph to its end in this process, without Redis or workers; for unit tests. See `orchestrator.local.run_local`."""
        from orchestrator.local import run_local

        return run_local(self, budget=budget, tenant=tenant)

    @cached_property
    def by_id(self) -> Mapping[str, Node]:
        """The nodes by id, in the graph's order."""
        return {node.id: node for node in self.nodes}

    def parents(self) -> dict[str, tuple[str, ...]]:
        """Return each node's parents, before any reduction; the order survives canonical form."""
        return {node.id: node.parents() for node in self.nodes}

    def tasks(self) -> frozenset[str]:
        """Return the names of all tasks that a run may need, those of variants included."""
        return frozenset(name for node in self.nodes for name in (node.task, *(v.task for v in node.variants if v.task)))

    @property
    def sink(self) -> str:
        """The id of the only node that no other waits for; HeadgateError where there are several."""
        waited_for = {parent for node in self.nodes for parent in node.parents()}
        sinks = [node.id for node in self.nodes if node.id not in waited_for]
        if len(sinks) == 1:
            return sinks[0]
        some = ", ".join(sinks[:5]) + (", ..." if len(sinks) > 5 else "")
        raise HeadgateError(
            f"graph {self.name!r} ends in {len(sinks)} nodes ({some}), so it has no single result; "
            "read the nodes' own results, or add a node that takes them all"
        )

    def spec(self) -> dict[str, Any]:
        """Return the public form as plain values, without what equals a default that no task can change."""
        return _said(self)

    def canonical(self) -> bytes:
        """Return the public form as compact JSON in UTF-8 with sorted keys; equal graphs give equal bytes."""
        return json.dumps(self.spec(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.canonical()).hexdigest()


def _said(model: _Frozen) -> dict[str, Any]:
    """Return the fields of a graph, node or variant that say something.

    A default of estimate, value, variants or max_cost that was written out overrules the task's definition, so it says something.
    """
    said: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value == field.default and not (name in FALLBACKS and name in model.model_fields_set):
            continue
        if name in ("nodes", "variants"):
            said[name] = [_said(item) for item in value]
        elif name == "priority":
            said[name] = value.name
        elif name == "when":
            said[name] = value.spec()
        else:
            said[name] = list(value) if isinstance(value, tuple) else value
    return said
