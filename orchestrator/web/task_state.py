"""What Flower knows of tasks: our nodes among them, each with its tenant, run and node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from celery.events.state import Task
from flower.events import EventsState

from orchestrator.celery_states import STATES
from orchestrator.web.run_view import error_of

_COUNTED: Mapping[str, str] = {"SUCCESS": "task-succeeded", "FAILURE": "task-failed", "REVOKED": "task-revoked", "RETRY": "task-retried"}

OURS: Mapping[str, str] = {"tenant": "Tenant", "run": "Run", "node": "Node"}
"""The columns that Flower's list of tasks has more, and their headings."""


class NodeOrTask(Task):
    """A task of Celery's; a node's has tenant, run and node."""

    tenant: str | None = None
    run: str | None = None
    node: str | None = None
    generation: int | None = None
    _fields = (*Task._fields, *OURS)

    @property
    def _serializer_handlers(self) -> dict[str, Any]:
        """What Celery keeps in each task: methods bound to it, a cycle, which would leave each to the collector that does not look here."""
        return {
            "children": self._serializable_children,
            "root": self._serializable_root,
            "parent": self._serializable_parent,
        }

    @_serializer_handlers.setter
    def _serializer_handlers(self, _handlers: dict[str, Any]) -> None:
        """Keep nothing."""


class TaskState(EventsState):
    """Flower's state, which our log feeds beside Celery's events. Used in the thread of Flower's loop only."""

    Task = NodeOrTask

    def note(self, event: Mapping[str, Any], name: str | None, *, counts: bool) -> None:
        """Take an event of a node (began, retry, ended). `counts`: it happened while this console was there, as its counters say."""
        task_id = f"{event['run']}.{event['gen']}.{event['node']}"
        evicted = self._eviction_candidate(task_id)
        task, _ = self.get_or_create_task(task_id)
        known = {"tenant": event.get("tenant"), "run": event["run"], "node": event["node"], "generation": int(event["gen"])}
        # Flower's search looks at these words: kwargs:acme finds a tenant, kwargs:load a node.
        words = repr({"tenant": event.get("tenant"), "run": event["run"], "node": event["node"]})
        task.__dict__.update(known, name=name or task.name, kwargs=words, **changes(event, task))
        worker = event.get("worker")
        if worker:
            # A worker that is not there any more is not to be listed among those that are.
            task.worker = self.workers.data.get(worker) or self.Worker(worker)
        self._index_task(task, evicted)
        if counts and task.worker is not None:
            self._count(task, event["t"])

    def _count(self, task: Any, kind: str) -> None:
        for counted in ("task-received", "task-started") if kind == "node.began" else (_COUNTED.get(task.state),):
            if counted is not None:
                self.counter[task.worker.hostname][counted] += 1
                fields = {"type": counted, "name": task.name, "runtime": task.runtime if counted == "task-succeeded" else None}
                self.metrics.observe_task(task.worker.hostname, fields, task)


def changes(event: Mapping[str, Any], task: Any) -> dict[str, Any]:
    """Return what an event makes of a task's fields; times in epoch seconds."""
    at = int(event.get("at") or 0) / 1000
    if event["t"] == "node.began":
        retries = max(0, int(event.get("attempt") or 1) - 1)
        return {"state": "STARTED", "received": task.received or at, "started": at, "timestamp": at, "retries": retries}
    error = error_of(event.get("error")) or {}
    said = ": ".join(error[name] for name in ("type", "message") if error.get(name)) or str(event.get("reason") or "")
    if event["t"] == "node.retry":
        return {"state": "RETRY", "retried": at, "timestamp": at, "exception": said, "traceback": error.get("traceback")}
    outcome = str(event.get("outcome"))
    state = STATES.get(outcome, "FAILURE")
    found: dict[str, Any] = {"state": state, "timestamp": at, "received": task.received or at}
    if task.started:
        found["runtime"] = max(0.0, at - task.started)
    if state == "SUCCESS":
        found |= {
            "succeeded": at,
            "result": json.dumps(f"skipped: {said}") if outcome == "skipped" else "",
            "exception": None,
            "traceback": None,
        }
    elif state == "FAILURE":
        found |= {"failed": at, "exception": said or outcome, "traceback": error.get("traceback")}
    else:
        found |= {"revoked": at, "exception": said or outcome}
    return found
