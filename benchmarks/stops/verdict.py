"""What a trial's log and executions say: whether anything began that was stopped. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Stop(NamedTuple):
    """What was stopped: `kind` as in `block.KINDS`; a run, or its nodes, or a scope (`tenant:{id}`, `platform`)."""

    kind: str
    run: str
    scope: str
    nodes: tuple[str, ...]


def violations(stop: Stop, events: Iterable[Mapping[str, Any]], executions: Iterable[tuple[str, int]]) -> list[str]:
    """Return what began although its fence stood, and what ran of the run without having begun; one sentence each.

    events: the log in its order. A fence stands from its own event on, which comes before its acknowledgement; a pause until its end.
    executions: key (`run.generation.node`) and attempt of each execution that was seen.
    """
    found: list[str] = []
    fenced: set[str] = set()
    paused: set[str] = set()
    tenants: dict[str, str] = {}
    admitted: dict[str, int] = {}
    cancelled_at: dict[str, int] = {}
    begun: set[tuple[str, int]] = set()
    ended: dict[str, str] = {}
    for position, event in enumerate(events):
        kind, run = str(event["t"]), str(event.get("run") or "")
        if kind == "run.admitted":
            admitted.setdefault(run, position)
            tenants[run] = str(event["tenant"])
        elif kind == "run.cancelling":
            fenced.add(run)
        elif kind == "node.cancelling":
            fenced |= {f"{run}.{node}" for node in event["nodes"]}
        elif kind == "scope.cancelled":
            cancelled_at[str(event["scope"])] = position
        elif kind == "scope.paused":
            paused.add(str(event["scope"]))
        elif kind == "scope.resumed":
            paused.discard(str(event["scope"]))
        elif kind == "node.ended":
            task_id = f"{run}.{event['gen']}.{event['node']}"
            if task_id in ended:
                found.append(f"{task_id} ended as {ended[task_id]} and as {event['outcome']}")
            ended[task_id] = str(event["outcome"])
        elif kind == "node.began":
            tenant, name = tenants.get(run, ""), f"{run}.{event['node']}"
            begun.add((f"{run}.{event['gen']}.{event['node']}", int(event["attempt"])))
            fences = [cancelled_at.get(scope, -1) for scope in ("platform", f"tenant:{tenant}")]
            if run in fenced or name in fenced or max(fences) > admitted.get(run, position):
                found.append(f"{name} began (attempt {event['attempt']}) after it was cancelled")
            if paused & {"platform", f"tenant:{tenant}", f"run:{run}.{event['gen']}"}:
                found.append(f"{name} began (attempt {event['attempt']}) while it was paused")
    for key, attempt in executions:
        if key.startswith(f"{stop.run}.") and (key, attempt) not in begun:
            found.append(f"{key} ran (attempt {attempt}) and never began")
    return found
