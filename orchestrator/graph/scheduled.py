"""The scheduled time in params: `{"$schedule": "time"}` and `{"$schedule": "date"}`, which a schedule or a backfill fills in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tenancy.errors import GraphInvalid

from .references import Path, printed

if TYPE_CHECKING:
    from .model import Graph

KEY = "$schedule"
WORDS = ("time", "date")


def is_scheduled(value: Any) -> bool:
    """Say whether a value stands for the scheduled time."""
    return isinstance(value, dict) and KEY in value


def scheduled(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths inside `value` at which the scheduled time stands."""
    if isinstance(value, dict):
        if KEY in value:
            yield path
        else:
            for key, item in value.items():
                yield from scheduled(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from scheduled(item, (*path, index))


def refuse_unscheduled(graph: Graph) -> None:
    """Raise GraphInvalid where a graph that is to run now has params that only a schedule fills in."""
    problems = [
        f"node {node.id!r}: `{printed(path)}` is the scheduled time, and nothing schedules this run; give a value, or run it by a schedule"
        for node in graph.nodes
        for params in (node.params, {"map": node.map}, *(variant.params for variant in node.variants))
        for path in scheduled(params)
    ]
    if problems:
        raise GraphInvalid(tuple(problems))


def at_time(graph: Graph, moment: datetime) -> Graph:
    """Return the graph with the scheduled time filled in: `time` is ISO 8601 with its offset, `date` the day, both in its timezone."""
    said = {"time": moment.isoformat(), "date": moment.date().isoformat()}
    nodes = []
    for node in graph.nodes:
        changes: dict[str, Any] = {}
        if any(scheduled(node.params)):
            changes["params"] = _filled(node.params, said)
        if any(scheduled(node.map)):
            changes["map"] = _filled(node.map, said)
        if any(any(scheduled(variant.params)) for variant in node.variants):
            changes["variants"] = tuple(variant.model_copy(update={"params": _filled(variant.params, said)}) for variant in node.variants)
        nodes.append(node.model_copy(update=changes) if changes else node)
    return graph.evolve(nodes=tuple(nodes))


def _filled(value: Any, said: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return said[value[KEY]] if KEY in value else {key: _filled(item, said) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(item, said) for item in value]
    return value
