"""What the log of a run's generation says, as spans: one of the run, one of each node from when it was due, one of each attempt. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.trace.identity import TraceContext, span_of

Attribute = str | int


@dataclass
class Span:
    """A span; times in ms since 1970-01-01 UTC, ids in hex. `error` is why it failed, None where it did not."""

    name: str
    span_id: str
    parent_id: str | None
    start_ms: int
    end_ms: int
    attributes: dict[str, Attribute] = field(default_factory=dict)
    error: str | None = None


def spans_of(run: Mapping[str, Any], tasks: Mapping[str, str], events: Iterable[Mapping[str, Any]], context: TraceContext) -> list[Span]:
    """Return the spans of a generation that is over; those of nodes that were never due are left out, for nothing was done for them.

    run: run_id, generation, tenant, graph, submitted_at (ms). tasks: the task of each node of the graph. events: its log, in order.
    """
    reading = SpanReading(run, tasks, context)
    reading.take(events)
    return reading.rest()


class SpanReading:
    """What a run's log has told of its spans so far; what was told of them is told once, until something of it changes.

    run, tasks, context: as `spans_of` takes them.
    """

    def __init__(self, run: Mapping[str, Any], tasks: Mapping[str, str], context: TraceContext) -> None:
        self.run_id, self.generation = str(run["run_id"]), int(run["generation"])
        self.of_run: dict[str, Attribute] = {
            "headgate.run": self.run_id,
            "headgate.generation": self.generation,
            "headgate.tenant": str(run["tenant"]),
        }
        name = f"run {run['graph']}" if run["graph"] else "run"
        start = int(run["submitted_at"])
        self.root = Span(name, span_of(self.run_id, self.generation), context.span_id, start, start, {**self.of_run})
        self.root.attributes["headgate.graph"] = str(run["graph"])
        self.tasks = tasks
        self.nodes: dict[str, Span] = {}
        self.attempts: dict[str, Span] = {}
        self.done: list[Span] = []
        self.at = self.root.start_ms
        self._ended: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._told: set[str] = set()

    def take(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take the next events of the log, in order."""
        for event in events:
            self.at = max(self.at, int(event.get("at") or 0))
            self._take(str(event.get("t")), event, int(event.get("at") or self.at))

    def finished(self) -> list[Span]:
        """Return what is over and was not told: attempts, and nodes whose last attempt was charged, since that is part of them."""
        nodes = (self.nodes[node] for node, attempt in self._ended.items() if node in self.nodes and attempt <= self._settled.get(node, 0))
        return [span for span in (*self.done, *nodes) if span.span_id not in self._told]

    def rest(self) -> list[Span]:
        """Return what was not told, of a run that is over: the run itself comes last."""
        everything = (*self.done, *self.nodes.values(), self.root)
        for span in everything:
            span.end_ms = max(span.end_ms, span.start_ms)
        return [span for span in everything if span.span_id not in self._told]

    def told(self, spans: Iterable[Span]) -> None:
        """Remember that these were taken by somebody."""
        self._told.update(span.span_id for span in spans)

    def _take(self, kind: str, event: Mapping[str, Any], at: int) -> None:
        if kind == "node.due":
            for node in event.get("nodes") or ():
                self._node(str(node), at)
        elif kind == "node.began":
            self._begin(event, at)
        elif kind == "node.lost":
            self._end_attempt(event, at, "lost", "its worker died")
        elif kind == "node.retry":
            outcome = str(event.get("outcome") or "failed")
            self._end_attempt(event, at, outcome, _why(event) or outcome)
        elif kind == "node.ended":
            self._end_node(event, at)
        elif kind == "money.settled" and event.get("node"):
            self._charge(event)
        elif kind == "run.ended":
            outcome = str(event.get("outcome"))
            self.root.end_ms = at
            self.root.attributes |= {"headgate.outcome": outcome, "headgate.cost_micros": int(event.get("cost") or 0)}
            self.root.error = outcome if outcome in ("failed", "terminated_by_cost") else None
        elif kind in ("run.refused", "run.cancelling"):
            self.root.attributes["headgate.reason"] = str(event.get("reason") or "")
            if kind == "run.refused":
                self.root.end_ms, self.root.error = at, str(event.get("reason") or "refused")

    def _node(self, node: str, at: int) -> Span:
        """Return the span of a node, which begins when it was due first."""
        if node not in self.nodes:
            task = self._task(node)
            span = Span(task or node, span_of(self.run_id, self.generation, node), self.root.span_id, at, at, {**self.of_run})
            span.attributes |= {"headgate.node": node, "headgate.task": task}
            self.nodes[node] = span
        return self.nodes[node]

    def _task(self, node: str) -> str:
        """The task of a node; an item of a map has its map's."""
        return self.tasks.get(node) or self.tasks.get(node.rpartition(".")[0]) or ""

    def _begin(self, event: Mapping[str, Any], at: int) -> None:
        node, attempt = str(event["node"]), int(event["attempt"])
        above = self._node(node, at)
        identity = span_of(self.run_id, self.generation, node, attempt)
        span = Span(f"{above.name} attempt {attempt}", identity, above.span_id, at, at, {**self.of_run, "headgate.node": node})
        span.attributes |= {"headgate.attempt": attempt, "headgate.worker": str(event.get("worker") or "")}
        if event.get("verdict"):
            span.attributes["headgate.variant"] = str(event["verdict"])
        self.attempts[node] = span

    def _end_attempt(self, event: Mapping[str, Any], at: int, outcome: str, error: str | None) -> None:
        span = self.attempts.pop(str(event["node"]), None)
        if span is not None:
            span.end_ms = max(at, span.start_ms)
            span.attributes["headgate.outcome"] = outcome
            span.error = error
            self.done.append(span)

    def _end_node(self, event: Mapping[str, Any], at: int) -> None:
        outcome, node = str(event.get("outcome")), str(event["node"])
        self._ended[node] = int(event.get("attempt") or 0)
        failed = outcome in ("failed", "timed_out")
        why = (_why(event) or outcome) if failed else None
        self._end_attempt(event, at, outcome, why)
        if (span := self.nodes.get(node)) is not None:
            span.end_ms = max(at, span.start_ms)
            span.attributes["headgate.outcome"] = outcome
            if event.get("reason"):
                span.attributes["headgate.reason"] = str(event["reason"])
            span.error = why

    def _charge(self, event: Mapping[str, Any]) -> None:
        node = str(event["node"])
        self._settled[node] = max(self._settled.get(node, 0), int(event.get("attempt") or 0))
        if (span := self.nodes.get(node)) is not None:
            self._told.discard(span.span_id)
            before = int(span.attributes.get("headgate.cost_micros", 0))
            span.attributes["headgate.cost_micros"] = before + int(event.get("amount") or 0)


def _why(event: Mapping[str, Any]) -> str:
    """The type of an error: its message may hold what a user would not have leave the platform."""
    error = event.get("error")
    return str(error.get("type") or "") if isinstance(error, Mapping) else str(event.get("reason") or "")
