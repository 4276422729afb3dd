"""What a task call gives inside `@dag`: a placeholder for a result that does not exist yet."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol, TypeVar, cast

from tenancy.errors import GraphInvalid

from .graph.items import KEY as ITEM
from .graph.limits import DEPTH_MAX
from .graph.references import MISSING

R = TypeVar("R")
D = TypeVar("D")


class Placeholder:
    """Stands for the result of one node while the graph is being built; it can be passed to tasks, and nothing else."""

    __slots__ = ("_default", "_graph", "_node")

    def __init__(self, graph: object, node: str, default: Any = MISSING) -> None:
        self._graph = graph
        self._node = node
        self._default = default

    def __repr__(self) -> str:
        return f"<result of node {self._node!r}>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # copy, inspect and others ask for these and expect this answer
            raise AttributeError(name)
        _misused(self, f".{name}")


class Item(Placeholder):
    """Stands for the item of a map."""

    def __init__(self) -> None:
        super().__init__(None, "")

    def __repr__(self) -> str:
        return "<item of a map>"


def _misused(placeholder: Placeholder, use: str) -> NoReturn:
    node = object.__getattribute__(placeholder, "_node")
    what = "the item of a map" if isinstance(placeholder, Item) else f"node {node!r}: its result"
    problem = f"{what} was used ({use}) while the graph is being built, when there is none yet"
    raise GraphInvalid((f"{problem}; pass it to a task and do this there",))


def _refusing(name: str, use: str) -> Any:
    def method(self: Placeholder, *_: Any, **__: Any) -> NoReturn:
        _misused(self, use)

    method.__name__ = name
    return method


#: Each would otherwise do something silently wrong (every object is true, equal to itself and has a text) or fail obscurely.
_USES = {
    "__bool__": "as true or false",
    "__iter__": "in a loop",
    "__len__": "len()",
    "__getitem__": "[...]",
    "__contains__": "in",
    "__call__": "as a function",
    "__await__": "await",
    "__str__": "as text",
    "__format__": "as text",
    "__hash__": "as a key",
    "__int__": "as a number",
    "__float__": "as a number",
    "__index__": "as a number",
    "__enter__": "with",
    **dict.fromkeys(("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"), "in a comparison"),
    **dict.fromkeys(
        (
            f"__{side}{operator}__"
            for operator in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
            for side in ("", "r")
        ),
        "with an operator",
    ),
    **dict.fromkeys(("__neg__", "__pos__", "__abs__", "__invert__"), "with an operator"),
}
for _name, _use in _USES.items():
    setattr(Placeholder, _name, _refusing(_name, _use))


def with_default(result: R, default: D) -> R | D:
    """Say what a task receives where the node behind `result` has none, because it is optional and was skipped or failed.

    default: any JSON value. Outside `@dag` there are real results only, and `result` is returned as it is.
    """
    if not isinstance(result, Placeholder):
        return result
    return cast("R", Placeholder(result._graph, result._node, default))


class Building(Protocol):
    """A graph under construction. outer: the one that it is a sub-graph of."""

    @property
    def outer(self) -> Building | None: ...

    def input(self, reference: dict[str, Any]) -> str:
        """Return the name by which nodes inside take what `reference` is in the outer graph."""


def referenced(value: Any, graph: Building, depth: int = 0) -> Any:
    """Return `value` with placeholders as `{"$ref": ...}` and tuples as lists; other values are judged by validation.

    A placeholder of the graph that this one is a sub-graph of becomes an input. Raises GraphInvalid for one of any other graph.
    """
    if isinstance(value, Item):
        return {ITEM: True}
    if isinstance(value, Placeholder):
        return _reference(value, graph)
    if depth > DEPTH_MAX:  # validation refuses it, in words
        return value
    if type(value) in (list, tuple):
        return [referenced(item, graph, depth + 1) for item in value]
    if type(value) is dict:
        return {key: referenced(item, graph, depth + 1) for key, item in value.items()}
    return value


def _reference(placeholder: Placeholder, graph: Building) -> dict[str, Any]:
    if placeholder._graph is graph:
        return {"$ref": placeholder._node} | ({} if placeholder._default is MISSING else {"default": placeholder._default})
    if graph.outer is None:
        raise GraphInvalid((f"node {placeholder._node!r} belongs to another graph; call the task inside this @dag function",))
    return {"$input": graph.input(_reference(placeholder, graph.outer))}
