"""What did a node wait for? Pure functions over recorded times."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple


class Span(NamedTuple):
    """When a node was due, when it began and ended (seconds), and on which worker."""

    id: str
    queued: float
    started: float
    finished: float
    worker: str


def idle(spans: Iterable[Span], slots: Mapping[str, int]) -> list[tuple[float, float]]:
    """Return when slots lay idle, for each slot from the dawn of time to its end.

    Which process of a worker ran a node is not recorded: the slot that has been free for longest is taken to, which makes the
    longest idle time as short as the record allows.
    """
    free = {worker: [float("-inf")] * count for worker, count in slots.items()}
    found = []
    for span in sorted(spans, key=lambda span: span.started):
        ends = free[span.worker]
        since = min(ends)
        found.append((since, span.started))
        ends[ends.index(since)] = span.finished
    return found + [(since, float("inf")) for ends in free.values() for since in ends]


def waits_without_cause(spans: Iterable[Span], slots: Mapping[str, int], tolerance_s: float) -> dict[str, float]:
    """Return the nodes that were due while one slot lay idle for more than `tolerance_s` seconds on end, with that time."""
    spans = list(spans)
    gaps = idle(spans, slots)
    found = {}
    for span in spans:
        wasted = max(min(until, span.started) - max(since, span.queued) for since, until in gaps)
        if wasted > tolerance_s:
            found[span.id] = wasted
    return found


def early(spans: Iterable[Span], parents: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Return the pairs (parent, child) where the child began before its parent had ended."""
    times = {span.id: span for span in spans}
    return [(parent, child) for child, above in parents.items() for parent in above if times[child].started < times[parent].finished]


def late_queued(spans: Iterable[Span], parents: Mapping[str, Collection[str]], tolerance_s: float) -> dict[str, float]:
    """Return the nodes that became due more than `tolerance_s` seconds after the last of their parents ended."""
    times = {span.id: span for span in spans}
    last = {child: max(times[parent].finished for parent in above) for child, above in parents.items() if above}
    delays = {child: times[child].queued - end for child, end in last.items()}
    return {node: delay for node, delay in delays.items() if delay > tolerance_s}
