"""One time of a schedule or a backfill: the graph that it runs, and the key that makes it run once."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.graph import Graph
from orchestrator.graph.fields import LABELS_MAX
from orchestrator.graph.limits import BYTES_CEILING, EDGES_CEILING, NODES_CEILING, PARAMS_BYTES_CEILING, Limits
from orchestrator.graph.scheduled import at_time

_STORED = Limits(nodes=NODES_CEILING, edges=EDGES_CEILING, bytes_max=BYTES_CEILING, params_bytes=PARAMS_BYTES_CEILING)
"""A schedule's graph is held to the limits of settings when it is created and submitted; when it is read, to what no setting allows."""


def key_of(schedule: str, at: int) -> str:
    """Return the key of a schedule's run at a time (ms): the same whoever submits it, so that it runs once."""
    return f"schedule.{schedule}.{moment_of(at)}"


def key_of_backfill(graph: str, at: int) -> str:
    """Return the key of the run at a time (ms) in a backfill of a graph that no schedule has."""
    return f"backfill.{graph}.{moment_of(at)}"


def moment_of(at: int) -> str:
    """Return a moment as ISO 8601 in UTC, whole seconds."""
    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stored_graph(spec: bytes) -> Graph:
    """Return a graph from the record, in which the scheduled time is still open. Raises GraphInvalid."""
    return Graph.parse(spec, _STORED)


def graph_at(graph: Graph, local: datetime, schedule: str | None) -> Graph:
    """Return the graph for a time: the scheduled time filled in, and in its labels, where they have room."""
    labels = {"scheduled": local.isoformat()} | ({} if schedule is None else {"schedule": schedule})
    bound = at_time(graph, local)
    if len(bound.labels) + len(labels) > LABELS_MAX:
        return bound
    return bound.evolve(labels={**labels, **bound.labels})
