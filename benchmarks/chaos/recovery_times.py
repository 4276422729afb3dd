"""Recovery times: from the moment of a fault to the moment when what it broke went on. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks.chaos.faults import Done
from benchmarks.chaos.log import Event

LOSING = ("worker", "child", "freeze", "redis", "power", "died at a point")
"""Faults that executions are lost to."""


def recoveries(events: Sequence[Event], done: Sequence[Done], takeovers: Mapping[int, int]) -> dict[str, list[int]]:
    """Return milliseconds by kind of fault.

    worker, child, freeze, a point: until the node whose execution was lost began again. redis, power: also until the next epoch was open.
    recorder: until another one held the lease, from `takeovers` (time of the fault -> milliseconds). An execution that was
    lost to something else (its worker let go of it when Redis went away) counts for the last fault before it.
    """
    found: dict[str, list[int]] = defaultdict(list)
    found["recorder"] += takeovers.values()
    lost: dict[tuple[str, int, str], Done] = {}
    waiting = [fault for fault in done if fault.kind in ("redis", "power")]
    for event in events:
        at = int(event.data["at"])
        if event.kind == "epoch.opened":
            for fault in waiting:
                if fault.at <= at:
                    found[fault.kind].append(at - fault.at)
            waiting = [fault for fault in waiting if fault.at > at]
        elif event.kind == "node.lost":
            cause = _cause(str(event.data["inc"]), at, done)
            if cause is not None:
                lost[event.node] = cause
        elif event.kind == "node.began" and event.node in lost:
            cause = lost.pop(event.node)
            found[cause.kind].append(at - cause.at)
    return {kind: sorted(times) for kind, times in sorted(found.items()) if times}


def _cause(inc: str, at: int, done: Sequence[Done]) -> Done | None:
    """Return the last fault before `at`: of the incarnation's own process if there is one, else of any; ids are host.pid.random."""
    before = [
        fault for fault in done if fault.at <= at and fault.kind in ("worker", "child", "freeze", "redis", "power", "died at a point")
    ]
    own = [fault for fault in before if inc.split(".")[-2:-1] == [str(fault.pid)]]
    return own[-1] if own else before[-1] if before else None
