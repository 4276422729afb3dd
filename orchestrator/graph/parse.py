"""From JSON text or plain values to a graph: strict reading, and the shape of every field."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .fields import REMEDIES, WORDS
from .limits import DEFAULT_LIMITS, Limits
from .model import Graph, Node, Variant
from .nested import flatten
from .references import printed
from .validate import Entry, bounded, validate
from .wording import Suggestions, shown

if TYPE_CHECKING:
    from orchestrator.registry import Registry

_INT_DIGITS_MAX = 100
_KEYS = {"graph": tuple(Graph.model_fields), "node": tuple(Node.model_fields), "variant": tuple(Variant.model_fields)}


def parse(
    source: str | bytes | Mapping[str, Any],
    limits: Limits = DEFAULT_LIMITS,
    registry: Registry | None = None,
    served: Collection[str] | None = None,
    *,
    elsewhere: bool = False,
) -> tuple[Graph | None, tuple[str, ...]]:
    """Return the graph, or None, and all its problems; never raises on what the source holds.

    elsewhere: whether a task that is neither registered nor served may exist all the same.
    """
    problems: list[str] = []
    raw: object = source
    if isinstance(source, (str, bytes, bytearray)):
        raw, problems = _read(source, limits)
        if raw is None:
            return None, tuple(problems)
    if not isinstance(raw, Mapping):
        return None, (*problems, f"the graph is {shown(raw)}; give an object with name and nodes")
    words = Suggestions()
    head = {key: value for key, value in raw.items() if key != "nodes"}
    graph, found = _graph(head, words)
    problems += found
    nodes = raw.get("nodes")
    if not isinstance(nodes, (list, tuple)) or not nodes:
        problems.append(f"graph: `nodes` is {shown(nodes) if 'nodes' in raw else 'missing'}; {REMEDIES['nodes']}")
        return None, bounded(problems)
    if len(nodes) > limits.nodes:
        problems.append(f"graph: {len(nodes):,} nodes are more than the limit of {limits.nodes:,}; split the graph or raise the limit")
        return None, bounded(problems)
    nodes, found = flatten(nodes, limits, words)
    problems += found
    entries = [_entry(index, node, problems, words) for index, node in enumerate(nodes)]
    problems += validate(graph.name, entries, limits, registry, served, words, elsewhere=elsewhere)
    graph = graph.model_copy(update={"nodes": tuple(entry.node for entry in entries)})
    return (None if problems else graph), bounded(problems)


# ---- reading ----------------------------------------------------------------------------------------------------------


class _Reader:
    """Hook of the JSON decoder that notes keys given twice, which it would let pass, with the node they are in.

    An object is complete only after everything inside it, so what was noted since the last node belongs to the next.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._pending: list[str] = []

    def pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    self._pending.append(f"the key {shown(key)} is given twice; keep one")
                seen.add(key)
        if self._pending and isinstance(found.get("id"), str) and ("task" in found or "graph" in found):
            self.claim(f"node {shown(found['id'])}")
        return found

    def claim(self, label: str) -> None:
        self.problems += [f"{label}: {problem}" for problem in self._pending]
        self._pending.clear()


def _whole(text: str) -> int:
    # int() refuses thousands of digits, and slowly reads millions; no field takes either, so any large number will do.
    return int(text) if len(text) <= _INT_DIGITS_MAX else 10**_INT_DIGITS_MAX


def _read(source: str | bytes | bytearray, limits: Limits) -> tuple[object, list[str]]:
    size = len(source)
    too_large = [f"the graph is larger than the limit of {limits.bytes_max:,} bytes; split the graph or raise the limit"]
    if size > limits.bytes_max:
        return None, too_large
    try:
        if isinstance(source, str):
            if len(source.encode()) > limits.bytes_max:
                return None, too_large
            text = source
        else:
            text = source.decode()
    except UnicodeError as error:
        where = getattr(error, "start", 0)
        return None, [f"the graph is not valid UTF-8 (at position {where}); save it as UTF-8"]
    reader = _Reader()
    try:
        # NaN and infinities pass here and are refused where they stand: by each field, and by `inspect_params`.
        raw = json.loads(text, object_pairs_hook=reader.pairs, parse_int=_whole)
    except RecursionError:
        return None, ["the graph is nested too deeply to be read; flatten it"]
    except ValueError as error:
        message = f"{error.msg} at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "unreadable"
        return None, [f"the graph is not JSON: {message}"]
    reader.claim("graph")
    if raw is None:
        return None, ["the graph is null; give an object with name and nodes"]
    return raw, reader.problems


# ---- shapes -----------------------------------------------------------------------------------------------------------


def _graph(head: dict[str, Any], words: Suggestions) -> tuple[Graph, list[str]]:
    stand_in = Node.model_construct(_fields_set={"id", "task"}, id="_", task="_")
    raw = {**head, "nodes": (stand_in,)}
    try:
        return Graph.model_validate(raw), []
    except ValidationError as error:
        problems, bad = sentences(error, "graph", "graph", words)
        rest = {key: value for key, value in raw.items() if key not in bad}
        return Graph.model_validate({"name": "graph", **rest}), problems


def _entry(index: int, raw: object, problems: list[str], words: Suggestions) -> Entry:
    if isinstance(raw, Node):
        return Entry.of(index, raw)
    if not isinstance(raw, Mapping):
        problems.append(f"nodes[{index}]: the node is {shown(raw)}; give an object with id and task")
        return Entry(index, f"nodes[{index}]", _STAND_IN, named=False, tasked=False)
    named = raw.get("id")
    label = f"node {shown(named)}" if isinstance(named, str) else f"nodes[{index}]"
    fields = dict(raw)
    try:
        return Entry(index, label, Node.model_validate(fields), named=True, tasked=True)
    except ValidationError as error:
        found, bad = sentences(error, label, "node", words)
        problems += found
        # What is left is still looked at, so that one bad field does not hide the problems of the others.
        rest = {key: value for key, value in fields.items() if key not in bad}
        node = Node.model_validate({"id": "_", "task": "_", **rest})
        return Entry(index, label, node, named="id" not in bad, tasked="task" not in bad)


_STAND_IN = Node(id="_", task="_")


def sentences(error: ValidationError, label: str, kind: str, words: Suggestions) -> tuple[list[str], set[Any]]:
    """Return one sentence for each field that the model refuses, and the names of the outermost fields concerned."""
    sentences: dict[str, None] = {}
    bad: set[Any] = set()
    for detail in error.errors(include_url=False, include_context=False):
        path = detail["loc"]
        bad.add(path[0])
        keyed = path[-1] == "[key]"
        path = path[:-1] if keyed else path
        inside = len(path) > 2 and path[0] == "variants"
        field = path[2] if inside else path[0]
        where = printed(path)
        if detail["type"] == "extra_forbidden":
            known = _KEYS["variant" if inside else kind]
            remedy = words.did_you_mean(path[-1], known, f"the known keys are {', '.join(known)}")
            place = f" in {printed(path[:-1])}" if inside else ""
            sentences[f"{label}: unknown key {shown(path[-1])}{place}; {remedy}"] = None
            continue
        remedy = REMEDIES.get(str(field), "leave it out")
        if detail["type"] == "missing":
            sentences[f"{label}: `{where}` is missing; {remedy}"] = None
        elif keyed:
            suggested = _suggested(path[-1], field, remedy, words)
            sentences[f"{label}: unknown name {shown(path[-1])} in `{printed(path[:-1])}`; {suggested}"] = None
        else:
            sentences[f"{label}: `{where}` is {shown(detail['input'])}; {_suggested(detail['input'], field, remedy, words)}"] = None
    return list(sentences), bad


def _suggested(value: object, field: object, remedy: str, words: Suggestions) -> str:
    near = words.near(value, WORDS.get(str(field), ()))
    return f"did you mean {near!r}? ({remedy})" if near is not None else remedy
