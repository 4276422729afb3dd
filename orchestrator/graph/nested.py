"""Sub-graphs: a node `{"id": n, "graph": {"nodes": [...]}}` stands for nodes n.inner; whoever reads a graph sees those alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .limits import DEPTH_MAX, Limits
from .wording import Suggestions, counted, shown

NESTED_MAX: Final = 5
"""Sub-graphs may stand this deep inside each other."""

KEYS: Final = ("id", "graph", "params", "after")
"""What a node that is a sub-graph says; everything else is said of the nodes inside."""

INPUT: Final = "$input"


def flatten(nodes: Sequence[object], limits: Limits, words: Suggestions) -> tuple[list[object], list[str]]:
    """Return the nodes without sub-graphs, and a sentence for each thing that is wrong with how these are used.

    nodes: as JSON has them; what is no sub-graph and refers to none is handed on as it is, whatever it is. Inside, ids and references
    get the prefix `n.`, and `{"$input": name}` becomes what the sub-graph's params say; outside, `{"$ref": n}` becomes its only
    sink, and `"after": [n]` all its sinks. Nodes that wait for none inside wait for what the sub-graph waits for.
    """
    if not any(isinstance(node, Mapping) and "graph" in node for node in nodes):
        return list(nodes), []
    flat = _Flat(limits, words)
    flat.emit(_Scope("", nodes, {}), ())
    return flat.nodes, flat.problems


@dataclass
class _Scope:
    """The nodes of one graph or sub-graph. inputs: params of the sub-graph, as the outermost scope says them; used: those taken inside."""

    prefix: str
    nodes: Sequence[object]
    inputs: Mapping[str, Any]
    depth: int = 0
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.named = {node["id"]: node for node in self.nodes if isinstance(node, Mapping) and isinstance(node.get("id"), str)}
        self.subs = {id_: node for id_, node in self.named.items() if "graph" in node}

    def sinks(self) -> list[str]:
        """The nodes that no other one in here waits for, with their full ids."""
        waited_for = {parent for node in self.named.values() for parent in _parents(node)}
        found: list[str] = []
        for id_ in self.named:
            if id_ not in waited_for:
                found += self.sinks_of(id_) if id_ in self.subs else [f"{self.prefix}{id_}"]
        return found

    def sinks_of(self, sub: str) -> list[str]:
        """Those of a sub-graph in here."""
        if self.depth >= NESTED_MAX:
            return []
        return _Scope(f"{self.prefix}{sub}.", _inner(self.subs[sub]), {}, self.depth + 1).sinks()


class _Flat:
    """The nodes that were found so far, and what is wrong with them."""

    def __init__(self, limits: Limits, words: Suggestions) -> None:
        self.limits, self.words = limits, words
        self.nodes: list[object] = []
        self.problems: list[str] = []
        self.bytes_left = limits.bytes_max
        self._sizes: dict[int, int] = {}
        self._sinks: dict[tuple[str, str], list[str]] = {}

    def emit(self, scope: _Scope, extra: Sequence[str]) -> None:
        """Add the nodes of a scope; extra: full ids that its roots wait for beside their own parents."""
        for node in scope.nodes:
            if not isinstance(node, Mapping):
                self.nodes.append(node)
                continue
            id_ = node.get("id")
            label = f"node {shown(scope.prefix + id_)}" if isinstance(id_, str) else f"a node of {shown(scope.prefix) or 'the graph'}"
            if isinstance(id_, str):
                self.problems += self._under(scope, id_, label)
            root = not any(parent in scope.named for parent in _parents(node))
            if "graph" in node:
                self._emit_sub(scope, node, label, extra if root else ())
            elif scope.prefix or scope.subs:
                self.nodes.append(self._rewritten(scope, node, label, extra if root else ()))
            else:
                self.nodes.append(node)

    def _under(self, scope: _Scope, id_: str, label: str) -> Iterator[str]:
        steps = id_.split(".")
        for end in range(1, len(steps)):
            if (sub := ".".join(steps[:end])) in scope.subs:
                yield f"{label}: its id lies under the sub-graph {scope.prefix + sub!r}; choose another"
                return

    def _emit_sub(self, scope: _Scope, node: Mapping[str, Any], label: str, extra: Sequence[str]) -> None:
        problems = list(self._shape(scope, node, label))
        self.problems += problems
        if problems:
            return
        inputs = {name: self._value(scope, value, label, 1) for name, value in dict(node.get("params") or {}).items()}
        after = [*self._after(scope, node.get("after") or (), label), *extra]
        inner = _Scope(f"{scope.prefix}{node['id']}.", _inner(node), inputs, scope.depth + 1)
        self.emit(inner, after)
        for name in inputs:
            if name not in inner.used:
                self.problems.append(f"{label}: nothing inside takes the parameter {shown(name)}; refer to it by $input, or leave it out")

    def _shape(self, scope: _Scope, node: Mapping[str, Any], label: str) -> Iterator[str]:
        if scope.depth >= NESTED_MAX:
            yield f"{label}: sub-graphs stand more than {NESTED_MAX} deep inside each other; take some apart"
            return
        if not isinstance(node.get("id"), str):
            yield f"{label}: a sub-graph has no `id`; give it one"
        for key in node:
            if key not in KEYS:
                yield f"{label}: a sub-graph takes {', '.join(KEYS)} and not {shown(key)}; say it of the nodes inside"
        graph = node["graph"]
        nodes = graph.get("nodes") if isinstance(graph, Mapping) else None
        if not isinstance(nodes, (list, tuple)) or not nodes:
            yield f"{label}: `graph` is {shown(graph)}; give an object with a list of at least one node, as nodes"
        else:
            for key in graph:
                if key != "nodes":
                    yield f"{label}: unknown key {shown(key)} in `graph`; the graph of a node takes nodes alone"
        if not isinstance(node.get("params", {}), Mapping):
            yield f"{label}: `params` is {shown(node['params'])}; give an object of parameters by name"
        if not isinstance(node.get("after", []), (list, tuple)):
            yield f"{label}: `after` is {shown(node['after'])}; give a list of node ids"

    # -- one node -------------------------------------------------------------------------------

    def _rewritten(self, scope: _Scope, node: Mapping[str, Any], label: str, extra: Sequence[str]) -> dict[str, Any]:
        found = dict(node)
        self._values_left = self.limits.params_bytes
        if isinstance(found.get("id"), str):
            found["id"] = scope.prefix + found["id"]
        for key, depth in (("params", 0), ("map", 1)):
            if key in found:
                found[key] = self._value(scope, found[key], label, depth)
        if isinstance(found.get("variants"), (list, tuple)):
            found["variants"] = [
                {**variant, "params": self._value(scope, variant["params"], label, 0)}
                if isinstance(variant, Mapping) and "params" in variant
                else variant
                for variant in found["variants"]
            ]
        if isinstance(when := found.get("when"), Mapping):
            asked = {key: when[key] for key in ("$ref", INPUT) if key in when}
            rest = {key: value for key, value in when.items() if key not in asked}
            said = self._value(scope, asked, label, 1)
            found["when"] = {**said, **rest} if isinstance(said, Mapping) else when
        if isinstance(found.get("after", []), (list, tuple)) and (found.get("after") or extra):
            found["after"] = list(dict.fromkeys([*self._after(scope, found.get("after") or (), label), *extra]))
        return found

    def _after(self, scope: _Scope, after: Sequence[Any], label: str) -> list[Any]:
        found: list[Any] = []
        for parent in after:
            if isinstance(parent, str):
                found += self._sinks_of(scope, parent) if parent in scope.subs else [scope.prefix + parent]
            elif isinstance(parent, Mapping) and INPUT in parent:
                said = self._value(scope, parent, label, 1)
                found.append(said["$ref"] if isinstance(said, Mapping) and "$ref" in said else said)
            else:
                found.append(parent)
        return found

    def _value(self, scope: _Scope, value: Any, label: str, depth: int) -> Any:
        """Return a value with references by full id, and inputs as what they are; what is too large or too deep is refused later."""
        self._values_left -= 1
        if depth > DEPTH_MAX + 1 or self._values_left < 0:
            return value
        if isinstance(value, (list, tuple)):
            return [self._value(scope, item, label, depth + 1) for item in value]
        if not isinstance(value, Mapping):
            return value
        if depth and isinstance(parent := value.get("$ref"), str):
            return {**value, "$ref": self._node(scope, parent, label)}
        if depth and INPUT in value and scope.depth:
            return self._input(scope, value, label)
        return {key: self._value(scope, item, label, depth + 1) for key, item in value.items()}

    _values_left = 0

    def _node(self, scope: _Scope, parent: str, label: str) -> str:
        if parent not in scope.subs:
            return scope.prefix + parent
        sinks = self._sinks_of(scope, parent)
        if len(sinks) != 1:
            some = ", ".join(sinks[:5]) + (", ..." if len(sinks) > 5 else "")
            ends = f", which ends in {counted(len(sinks), 'node')} ({some})" if sinks else ""
            self.problems.append(f"{label}: it refers to the sub-graph {scope.prefix + parent!r}{ends}; refer to one of its nodes")
            return next(iter(sinks), scope.prefix + parent)
        return sinks[0]

    def _sinks_of(self, scope: _Scope, sub: str) -> list[str]:
        key = scope.prefix, sub
        if key not in self._sinks:
            self._sinks[key] = scope.sinks_of(sub)
        return self._sinks[key]

    def _input(self, scope: _Scope, value: Mapping[Any, Any], label: str) -> Any:
        name = value[INPUT]
        if not isinstance(name, str) or set(value) - {INPUT, "default"}:
            self.problems.append(
                f"{label}: {INPUT} is {shown(name)}; it is the name of a parameter of its sub-graph, with a default or alone"
            )
            return None
        if name not in scope.inputs:
            if "default" in value:
                return value["default"]
            near = self.words.did_you_mean(name, scope.inputs, f"give it in params of {scope.prefix[:-1]!r}, or a default here")
            self.problems.append(f"{label}: its sub-graph has no parameter {shown(name)}; {near}")
            return None
        scope.used.add(name)
        given = scope.inputs[name]
        self.bytes_left -= self._size(given)
        if self.bytes_left < 0:
            if self.bytes_left + self._size(given) >= 0:
                self.problems.append(
                    f"{label}: with what sub-graphs are given the graph is larger than the limit of {self.limits.bytes_max:,} bytes; "
                    "pass the name of a file, or another node's result"
                )
            return None
        return given

    def _size(self, value: Any) -> int:
        if id(value) not in self._sizes:
            try:
                self._sizes[id(value)] = len(json.dumps(value, default=str))
            except (ValueError, TypeError, RecursionError):  # refused where it stands
                self._sizes[id(value)] = 0
        return self._sizes[id(value)]


def _inner(node: Mapping[str, Any]) -> Sequence[object]:
    graph = node["graph"]
    nodes = graph.get("nodes") if isinstance(graph, Mapping) else None
    return nodes if isinstance(nodes, (list, tuple)) else ()


def _parents(node: Mapping[str, Any]) -> set[str]:
    """The ids in a node's own scope that it waits for, as far as it is well formed."""
    found: set[str] = set()
    after = node.get("after")
    if isinstance(after, (list, tuple)):
        found.update(parent for parent in after if isinstance(parent, str))
    stack: list[tuple[int, Any]] = [(0, {key: node[key] for key in ("params", "map", "when") if key in node})]
    left = 1_000_000
    while stack and left:
        left -= 1
        depth, value = stack.pop()
        if isinstance(value, Mapping):
            if depth and isinstance(value.get("$ref"), str):
                found.add(value["$ref"])
            elif depth <= DEPTH_MAX + 2:
                stack.extend((depth + 1, item) for item in value.values())
        elif isinstance(value, (list, tuple)) and depth <= DEPTH_MAX + 2:
            stack.extend((depth + 1, item) for item in value)
    return found
