"""Graphs in Python: `@task` makes a function the work of nodes, `@dag` makes a function a graph."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from pydantic import ValidationError

from tenancy.errors import GraphInvalid
from tenancy.priorities import Priority

from .graph import Graph, Limits, Node, Variant
from .graph.fields import TIMEOUT_MAX_S
from .graph.limits import EDGES_CEILING, NODES_CEILING
from .graph.model import FALLBACKS
from .graph.parse import parse, sentences
from .graph.wording import Suggestions, shown
from .limit import Limit, problems_of
from .placeholder import Item, Placeholder, referenced, with_default
from .registry import TaskDefinition, module_name, registry

__all__ = ["Dag", "Task", "dag", "equals", "item", "not_equals", "one_of", "task", "with_default"]

P = ParamSpec("P")
R = TypeVar("R")

#: Submission has the limits of its settings; here only what no setting allows is refused.
_LIMITS = Limits(nodes=NODES_CEILING, edges=EDGES_CEILING)


class Task(Generic[P, R]):
    """A function that can be a node.

    Inside a `@dag` function a call adds a node and gives a placeholder typed as the result; anywhere else it calls the function
    (of an `async def` task that is a coroutine, whatever the type says; `function` is the plain function with its own type).
    """

    def __init__(self, definition: TaskDefinition, function: Callable[..., Any], options: Mapping[str, Any] | None = None) -> None:
        functools.update_wrapper(cast("Callable[..., Any]", self), definition.function, updated=())
        self.definition = definition
        self.function = function
        self._options = dict(options or {})

    def __repr__(self) -> str:
        return f"<task {self.definition.name!r}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        building = _building.get()
        if building is None:
            return cast("R", self.function(*args, **kwargs))
        return cast("R", building.add(self.definition, self._options, args, kwargs))

    def map(self, items: Sequence[Any] | Any, /, *args: Any, **kwargs: Any) -> list[R]:
        """Run the task once for each item of a list, or of what another task returns; a placeholder for the list of what they return.

        Where `item` stands among the arguments, or inside them, the item is passed; where it stands nowhere, the item is the first
        argument, and `args` follow it. Outside a `@dag` function the task is called for each item.
        """
        if not _takes_item((args, kwargs)):
            args = (item, *args)
        building = _building.get()
        if building is None:
            return [self.function(*_with_item(args, each), **_with_item(kwargs, each)) for each in items]
        return cast("list[R]", building.add(self.definition, {**self._options, "map": items}, args, kwargs))

    def options(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the name that the field has in the graph
        required: bool | None = None,
        value: int | None = None,
        after: object = None,
        priority: Priority | str | None = None,
        timeout_s: int | None = None,
        attempts: int | None = None,
        join: str | None = None,
        when: object = None,
        pool: str | None = None,
        estimate: Mapping[str, int] | None = None,
        max_cost: int | None = None,
        variants: Sequence[Variant | Mapping[str, Any]] | None = None,
        labels: Mapping[str, str] | None = None,
        max_items: int | None = None,
        expected_items: int | None = None,
    ) -> Task[P, R]:
        """Return the task with options for the node that the next call adds; they add to earlier ones.

        id: default the function's name, then name-2, name-3. required: false lets the run go on without it. value: 0 to 10^9.
        after: results or ids, one or several, to wait for without using them. timeout_s: 1 to 604800. attempts: 1 to 20.
        estimate, max_cost: micros. pool: the workers that may run it. join: all_succeeded, all_done or at_least(n). when: what
        `equals`, `not_equals` or `one_of` gives, or such an object as JSON has. max_items, expected_items: of a map, 1 to 10,000. What is
        wrong with an option
        is among the problems that calling the `@dag` function reports.
        """
        said = {
            "id": id, "required": required, "value": value, "after": after, "priority": priority, "timeout_s": timeout_s,
            "attempts": attempts, "join": join, "when": when, "pool": pool, "estimate": estimate, "max_cost": max_cost,
            "variants": variants, "labels": labels,
            "max_items": max_items, "expected_items": expected_items,
        }  # fmt: skip
        given = {name: option for name, option in said.items() if option is not None}
        return Task(self.definition, self.function, {**self._options, **given})


class _Decorator(Protocol):
    """What `@task(...)` returns: an `async def` task is typed by what it will give."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class _TaskDecorator:
    """`@task`, `@task(...)` and `task.adopt(...)`."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def __call__(
        self,
        *,
        name: str | None = None,
        estimate: Mapping[str, int] | None = None,
        value: int | None = None,
        variants: Sequence[Variant | Mapping[str, Any]] = (),
        max_cost: int | None = None,
        limits: Sequence[Limit] = (),
        pool: str | None = None,
        expected_s: float | None = None,
    ) -> _Decorator: ...

    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        estimate: Mapping[str, int] | None = None,
        value: int | None = None,
        variants: Sequence[Variant | Mapping[str, Any]] = (),
        max_cost: int | None = None,
        limits: Sequence[Limit] = (),
        pool: str | None = None,
        expected_s: float | None = None,
    ) -> Any:
        """Make a function a task and register it.

        name: default module.function; a script that runs goes by its file's stem. estimate: expected micros by category, default
        1000 of compute. value: 0 to 10^9, default 1. variants: cheaper ways to run it. max_cost: micros that one execution may cost
        at most. limits: what it takes of things that are scarce. pool: the workers that may run it, default the tenant's. expected_s:
        how long it takes, above 0 to 604800 s, until that is learned. Raises GraphInvalid where one of these is wrong, Conflict where
        the name is taken or another task declares one of the limits with other numbers.
        """

        def define(function: Callable[..., Any]) -> Task[..., Any]:
            own = getattr(function, "__name__", "<lambda>")
            if name is None and own == "<lambda>":
                raise GraphInvalid(("a lambda has no name that a worker could find it by; pass name=, or use def",))
            definition = _definition(
                name or f"{module_name(function)}.{own}",
                function,
                inspect.signature(function),
                {"estimate": estimate, "value": value, "variants": tuple(variants) or None, "max_cost": max_cost, "pool": pool},
                limits,
                expected_s,
            )
            return Task(definition, function)

        return define if function is None else define(function)

    def adopt(
        self,
        celery_task: Any,
        *,
        name: str | None = None,
        estimate: Mapping[str, int] | None = None,
        value: int | None = None,
        variants: Sequence[Variant | Mapping[str, Any]] = (),
        max_cost: int | None = None,
        limits: Sequence[Limit] = (),
        pool: str | None = None,
        expected_s: float | None = None,
    ) -> Task[..., Any]:
        """Make an existing Celery task usable as a node, unchanged; bound tasks, retries and own base classes keep working.

        name: default, and best left, the Celery task's own. Otherwise as `@task`.
        """
        run = getattr(celery_task, "run", None)
        celery_name = getattr(celery_task, "name", None)
        if not callable(run) or not isinstance(celery_name, str):
            raise GraphInvalid((f"a Python {type(celery_task).__name__} is not a Celery task; adopt what @app.task or @shared_task made",))
        signature = inspect.signature(run)
        said = {"estimate": estimate, "value": value, "variants": tuple(variants) or None, "max_cost": max_cost, "pool": pool}
        definition = _definition(name or celery_name, run, signature, said, limits, expected_s, adopted=celery_task)
        return Task(definition, celery_task)


task = _TaskDecorator()


def _definition(
    name: str,
    function: Callable[..., Any],
    signature: inspect.Signature,
    defaults: Mapping[str, Any],
    limits: Sequence[Limit],
    expected_s: float | None,
    adopted: Any = None,
) -> TaskDefinition:
    problems: list[str] = []
    label = f"task {name!r}"
    problems += [f"{label}: {problem}" for problem in problems_of(limits)]
    if not _is_duration(expected_s):
        problems.append(f"{label}: `expected_s` is {shown(expected_s)}; give seconds above 0, to {TIMEOUT_MAX_S}")
    if only := [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_ONLY]:
        problems.append(f"{label}: the parameter {only[0]!r} is positional-only, and params go by name; remove the '/'")
    said = {key: _plain(option) for key, option in defaults.items() if option is not None}
    try:
        node = Node.model_validate({"id": "_", "task": name, **said})
    except ValidationError as error:
        problems += sentences(error, label, "node", Suggestions())[0]
    if problems:
        raise GraphInvalid(tuple(problems))
    taken = {field: getattr(node, field) for field in (*FALLBACKS, "pool")}
    definition = TaskDefinition(name, function, signature, adopted=adopted, limits=tuple(limits), expected_s=expected_s, **taken)
    registry.register(definition)
    return definition


def _is_duration(seconds: object) -> bool:
    return seconds is None or (type(seconds) in (int, float) and 0 < cast("float", seconds) <= TIMEOUT_MAX_S)


def _plain(option: Any) -> Any:
    return dict(option) if isinstance(option, Mapping) else option


# ---- items ------------------------------------------------------------------------------------------------------------

item: Any = Item()
"""For arguments of `map`: the item, alone or inside lists and objects."""


def _takes_item(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_takes_item(each) for each in value.values())
    return isinstance(value, Item) or (isinstance(value, (list, tuple)) and any(_takes_item(each) for each in value))


def _with_item(value: Any, given: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_item(each, given) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_item(each, given) for each in value]
    return given if isinstance(value, Item) else value


# ---- conditions -------------------------------------------------------------------------------------------------------


def equals(result: object, value: str | float | bool | None) -> dict[str, Any]:
    """For `options(when=...)`: the node runs only if `result`, what a task call gave inside `@dag` or a node's id, is `value`.

    value: a text of at most 1,000 characters, a number, True, False or None. A node whose condition does not hold is not taken, nor is one
    whose `result` there is none of.
    """
    return {"$ref": result, "equals": value}


def not_equals(result: object, value: str | float | bool | None) -> dict[str, Any]:
    """As `equals`, for a result that is there and is not `value`."""
    return {"$ref": result, "not_equals": value}


def one_of(result: object, *values: str | float | bool | None) -> dict[str, Any]:
    """As `equals`, for a result that is one of 1 to 100 `values`."""
    return {"$ref": result, "in": list(values)}


# ---- @dag -------------------------------------------------------------------------------------------------------------


class Dag(Generic[P]):
    """A function that describes a graph; calling it builds one, and raises GraphInvalid with all problems where it has any.

    Called inside another one it becomes a sub-graph of that, and gives a placeholder for the result of its only sink.
    """

    def __init__(
        self,
        function: Callable[P, object],
        name: str | None,
        labels: Mapping[str, str],
        max_parallel: int | None,
        on_failure: str = "finish",
    ) -> None:
        functools.update_wrapper(cast("Callable[..., Any]", self), function, updated=())
        self.function = function
        self.name = name or function.__name__
        self.labels = dict(labels)
        self.max_parallel = max_parallel
        self.on_failure = on_failure

    def __repr__(self) -> str:
        return f"<dag {self.name!r}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Graph:
        outer = _building.get()
        building = _Building(self.name, self.labels, self.max_parallel, self.on_failure, outer)
        token = _building.set(building)
        try:
            self.function(*args, **kwargs)
        finally:
            _building.reset(token)
        return building.graph() if outer is None else cast("Graph", outer.add_graph(building))


class _DagDecorator(Protocol):
    def __call__(self, function: Callable[P, object], /) -> Dag[P]: ...


@overload
def dag(function: Callable[P, object], /) -> Dag[P]: ...
@overload
def dag(
    *, name: str | None = None, labels: Mapping[str, str] | None = None, max_parallel: int | None = None, on_failure: str = "finish"
) -> _DagDecorator: ...
def dag(
    function: Callable[..., object] | None = None,
    /,
    *,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    max_parallel: int | None = None,
    on_failure: str = "finish",
) -> Any:
    """Make a function that calls tasks a graph; its return value is free.

    name: default the function's. labels: texts for people and searches. max_parallel: how many nodes of a run may be in workers' hands
    at once, 1 to 200,000, default as many as there are slots. on_failure: what a required node that fails means: finish what
    does not depend on it, or stop what has not begun.
    """

    def define(function: Callable[..., object]) -> Dag[...]:
        if inspect.iscoroutinefunction(function):
            raise GraphInvalid((f"dag {function.__name__!r}: it is async, and building a graph waits for nothing; use a plain def",))
        return Dag(function, name, labels or {}, max_parallel, on_failure)

    return define if function is None else define(function)


class _Building:
    """The graph under construction, as the plain values that JSON would give: both ways in are judged by the same code."""

    def __init__(
        self, name: str, labels: Mapping[str, str], max_parallel: int | None, on_failure: str, outer: _Building | None = None
    ) -> None:
        self.name = name
        self.outer = outer
        self._inputs: dict[str, Any] = {}
        self._said = {"name": name, "labels": labels, "max_parallel": max_parallel, "on_failure": on_failure}
        self._nodes: list[dict[str, Any]] = []
        self._ids: set[object] = set()
        self._counts: dict[str, int] = {}
        self._problems: list[str] = []

    def add(self, definition: TaskDefinition, options: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Placeholder:
        node_id = options["id"] if "id" in options else self._next_id(definition)
        self._ids.add(node_id if isinstance(node_id, str) else None)
        node = {
            "id": node_id,
            "task": definition.name,
            **{key: self._option(key, option) for key, option in options.items() if key != "id"},
        }
        params = {key: referenced(value, self) for key, value in self._named(definition, node_id, args, kwargs).items()}
        self._nodes.append({**node, "params": params})
        return Placeholder(self, node_id)

    def add_graph(self, inner: _Building) -> Placeholder:
        """Add a graph that was built inside this one, as a node."""
        node_id = self._next(re.sub(r"[^A-Za-z0-9_]", "_", inner.name)[:90])
        self._ids.add(node_id)
        said = {name: said for name, said in inner._said.items() if name != "name" and said not in ({}, None, "finish")}
        self._problems += [
            *inner._problems,
            *(f"dag {inner.name!r}: `{name}` is the whole run's; say it of {self.name!r}" for name in said),
        ]
        if not inner._nodes:
            self._problems.append(f"dag {inner.name!r}: the dag called no task; what it calls becomes its nodes")
        self._nodes.append({"id": node_id, "graph": {"nodes": inner._nodes}, "params": inner._inputs})
        return Placeholder(self, node_id)

    def input(self, reference: dict[str, Any]) -> str:
        """Return the name by which nodes take what `reference` is in the outer graph."""
        known = [name for name, given in self._inputs.items() if given == reference]
        name = known[0] if known else f"{reference.get('$ref', 'input')}-{len(self._inputs)}"
        self._inputs[name] = reference
        return name

    def graph(self) -> Graph:
        if not self._nodes:
            raise GraphInvalid((*self._problems, f"dag {self.name!r}: the dag called no task; what it calls becomes its nodes"))
        raw = {**self._said, "nodes": self._nodes}
        graph, problems = parse(raw, _LIMITS, registry, elsewhere=True)
        if graph is None or self._problems:
            raise GraphInvalid((*self._problems, *problems))
        return graph

    def _next_id(self, definition: TaskDefinition) -> str:
        own = getattr(definition.function, "__name__", "") if definition.adopted is None else ""
        return self._next(re.sub(r"[^A-Za-z0-9_]", "_", own if own.isidentifier() else definition.name.rpartition(".")[2])[:90])

    def _next(self, base: str) -> str:
        while True:
            count = self._counts[base] = self._counts.get(base, 0) + 1
            node_id = base if count == 1 else f"{base}-{count}"
            if node_id not in self._ids:
                return node_id

    def _option(self, key: str, option: Any) -> Any:
        if key == "after":
            several = [option] if isinstance(option, (str, Placeholder)) or not isinstance(option, Iterable) else option
            said = [referenced(item, self) if isinstance(item, Placeholder) else item for item in several]
            return [item.get("$ref", item) if isinstance(item, dict) else item for item in said]
        if key == "when":
            if isinstance(option, Mapping) and isinstance(option.get("$ref"), Placeholder):
                return {name: said for name, said in option.items() if name != "$ref"} | referenced(option["$ref"], self)
            return _plain(option)
        if key == "map":
            return referenced(option, self)
        if key == "variants":
            return tuple(_plain(variant) for variant in option)
        return option if isinstance(option, Priority) else _plain(option)

    def _named(self, definition: TaskDefinition, node_id: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Params go by name; what is missing or unknown is found later, with everything else."""
        names = [p.name for p in definition.signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        if len(args) > len(names):
            self._problems.append(
                f"node {node_id!r}: {len(args)} positional arguments for task {definition.name!r}, which takes {len(names)}; name them"
            )
        given = dict(zip(names, args, strict=False))
        self._problems += [f"node {node_id!r}: the parameter {name!r} is given twice; keep one" for name in given if name in kwargs]
        return {**given, **kwargs}


_building: ContextVar[_Building | None] = ContextVar("headgate_building", default=None)
