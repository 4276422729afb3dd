"""What is written about a run that has ended: its report, the results of its nodes, and the attempts of its workers."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.artifacts import place
from orchestrator.artifacts.attempts import Attempt, attempts_of, most_at_once
from orchestrator.artifacts.file import replacing, write_json
from orchestrator.results import OBJECT_MARK
from orchestrator.store.position import Position
from orchestrator.store.read import NodeView, RunView, read_json
from tenancy.priorities import Priority

SCHEMA_VERSION = 1

NODES_APART = 1_000
"""Up to so many nodes each has a file of its own."""


@dataclass(frozen=True)
class RunFiles:
    """All that the files about a run are made from. pools: those that its nodes belong to; capacity: of these at its end, in nodes."""

    run: RunView
    nodes: Sequence[NodeView]
    attempts: Sequence[Attempt]
    held: int
    capacity: int
    park_at_percent: int

    @classmethod
    def of(
        cls, run: RunView, nodes: Sequence[NodeView], events: Iterable[Mapping[str, Any]], capacity: int, park_at_percent: int
    ) -> RunFiles:
        """Return them from what the record has of a run; `events` are those that tell its attempts and why it had to wait."""
        known = list(events)
        held = sum(event["t"] == "run.held" and event.get("why") == "backpressure" for event in known)
        return cls(run, nodes, attempts_of(known), held, capacity, park_at_percent)

    def task_id(self, node_id: str) -> str:
        """Return the id of a node's Celery task."""
        return f"{self.run.run_id}.{self.run.generation}.{node_id}"

    @cached_property
    def report(self) -> dict[str, Any]:
        """Return the concurrency report."""
        counts = Counter(node.outcome for node in self.nodes)
        tasks = [
            {
                "task_id": self.task_id(node.id),
                "node_id": node.id,
                "status": node.outcome or node.state,
                "priority": Priority.parse(self.run.priority).name,
                "latency_ms": _latency_ms(node),
                "error": node.error,
            }
            for node in self.nodes
        ]
        latencies = [ms for node in self.nodes if (ms := _latency_ms(node)) is not None]
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run.run_id,
            "tenant_id": self.run.tenant,
            "pool": {"capacity": self.capacity, "backpressure_threshold": self.capacity * self.park_at_percent // 100},
            "metrics": {
                "total": len(self.nodes),
                "completed": counts["succeeded"],
                "failed": counts["failed"] + counts["timed_out"],
                "skipped": counts["skipped"],
                "avg_latency_ms": round(sum(latencies) / len(latencies), 3) if latencies else None,
                "max_concurrency_reached": most_at_once(self.attempts),
                "backpressure_events": self.held,
            },
            "tasks": tasks,
        }

    def result(self, node: NodeView) -> dict[str, Any]:
        """Return what became of a node."""
        large = node.result is not None and node.result.startswith(OBJECT_MARK)
        return {
            "schema_version": SCHEMA_VERSION,
            "task_id": self.task_id(node.id),
            "run_id": self.run.run_id,
            "node_id": node.id,
            "outcome": node.outcome or node.state,
            "result": None if large else read_json(node.result),
            "result_reference": (node.result or "")[len(OBJECT_MARK) :] if large else None,
            "timestamp": node.finished_at,
        }

    @cached_property
    def trace_lines(self) -> dict[str, list[str]]:
        """Return the attempts of each worker, a line each."""
        found: dict[str, list[str]] = defaultdict(list)
        for each in self.attempts:
            line = {
                "schema_version": SCHEMA_VERSION,
                "worker_id": each.worker_id,
                "task_id": self.task_id(each.node_id),
                "run_id": self.run.run_id,
                "tenant_id": self.run.tenant,
                "node_id": each.node_id,
                "attempt": each.attempt,
                "started_at": each.started_ms / 1000,
                "completed_at": None if each.completed_ms is None else each.completed_ms / 1000,
                "status": each.status,
                "error": each.error,
            }
            found[each.worker_id].append(_line(line))
        return dict(found)

    @cached_property
    def results(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the id of each node's Celery task, and what became of it."""
        return [(self.task_id(node.id), self.result(node)) for node in self.nodes]

    def built(self) -> RunFiles:
        """Return these with all that is written made, so that whatever does not fit is known before anything is."""
        _ = self.report, self.trace_lines, self.results
        return self

    def files_of_nodes(self, root: Path) -> list[tuple[Path, dict[str, Any]]]:
        """Return the files that nodes have of their own, to be written in any order; none where there are too many nodes."""
        return [] if len(self.nodes) > NODES_APART else [(place.task_result(root, task_id), said) for task_id, said in self.results]

    def write_together(self, root: Path) -> None:
        """Write the results of a run that has too many nodes for files of their own. Raises OSError."""
        if len(self.nodes) > NODES_APART:
            with replacing(place.task_results(root, self.run.run_id, self.run.generation)) as file:
                file.writelines(_line(said) for _, said in self.results)

    def write_report(self, root: Path) -> None:
        """Write the report; the last of a run's files, so that where it is the others are. Raises OSError."""
        write_json(place.concurrency_report(root, self.run.run_id, self.run.generation), self.report)


def capacity_at(lives: Iterable[tuple[Position, Mapping[str, Any]]], at: Position, pools: frozenset[str], backlog_per_slot: int) -> int:
    """Return what the workers of some pools could take at a position of the log: their live slots times `backlog_per_slot`.

    lives: the events of the lives of workers, in their order.
    """
    slots: dict[str, int] = {}
    for position, event in lives:
        if position > at:
            break
        worker = str(event.get("inc") or "")
        if event["t"] == "worker.enrolled":
            info = dict(event.get("info") or {})
            if pools & set(info.get("pools") or ()):
                slots[worker] = int(info.get("slots") or 0)
        elif event["t"] in ("worker.retired", "worker.dead"):
            slots.pop(worker, None)
        elif event["t"] == "epoch.opened" and int(event.get("rebuilt") or 0):
            slots.clear()
    return sum(slots.values()) * backlog_per_slot


def _latency_ms(node: NodeView) -> int | None:
    if node.started_at is None or node.finished_at is None or node.queued_at is None:
        return None
    return round((node.finished_at - node.queued_at) * 1000)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n"
