"""Counts what the log tells, event by event, and how long nodes waited and took. It never looks back, and holds a bounded amount."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from cost.levels import NAMES as LEVELS
from orchestrator.sweeper import MENDS

NODES_KEPT = 100_000
"""Nodes in line or running whose times are remembered; of those that are more, the oldest add nothing to the histograms."""
LABELS_MAX = 50
"""Values of labels in one family, should a newer worker write words that nobody knew; the rest is counted as `other`."""
TENANTS_MAX = 1_000
"""Tenants whose nodes are counted one by one; the rest is counted under the name `(others)`, which no tenant has."""

BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)

OUTCOMES = ("succeeded", "skipped", "failed", "timed_out", "cancelled", "upstream_failed")
RUN_OUTCOMES = ("succeeded", "degraded", "failed", "cancelled", "terminated_by_cost", "refused")
ACTIONS = ("continue", "degrade", "restore", "terminate", "hold", "finish")

Node = tuple[str, int, str]


@dataclass
class Histogram:
    """How many seconds something took, as Prometheus counts it."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total_s: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, how many took no longer)."""
        found, below = [], 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


class Times:
    """Since when nodes wait or run, in ms; the oldest are forgotten above `NODES_KEPT`."""

    def __init__(self) -> None:
        self._since: OrderedDict[Node, int] = OrderedDict()

    def begin(self, node: Node, at: int) -> None:
        self._since.setdefault(node, at)
        while len(self._since) > NODES_KEPT:
            self._since.popitem(last=False)

    def end(self, node: Node, at: int) -> float | None:
        """Return the seconds that it was, None where its beginning is not known."""
        since = self._since.pop(node, None)
        return None if since is None else max(0.0, (at - since) / 1000)


class Tally:
    """Counters since it was made. `note` and `families` may be called from different threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._count: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in _COUNTERS}
        for name, values in _EXPECTED.items():
            self._count[name].update(dict.fromkeys(values, 0))
        self._waiting, self._running = Times(), Times()
        self._wait = Histogram()
        self._duration = {outcome: Histogram() for outcome in OUTCOMES}

    def note(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take events in their order; those that count nothing are passed over."""
        with self._lock:
            for event in events:
                kind = str(event.get("t"))
                if kind in _TAKES:
                    _TAKES[kind](self, event)
                elif kind in _ONES:
                    self._add(_ONES[kind])

    def families(self) -> Iterator[Metric]:
        """What says nothing of tenants."""
        with self._lock:
            for name in _OF_PLATFORM:
                yield self._counter(name)
            yield _histogram("headgate_node_queue_wait_seconds", "From when a node was due to when it began.", (), {(): self._wait})
            durations: dict[tuple[str, ...], Histogram] = {(outcome,): each for outcome, each in self._duration.items()}
            yield _histogram("headgate_node_duration_seconds", "What the last attempt of a node took.", ("outcome",), durations)

    def families_of_tenants(self) -> Iterator[Metric]:
        """What names tenants: for who may know them."""
        with self._lock:
            for name in _OF_TENANTS:
                yield self._counter(name)

    def _counter(self, name: str) -> Metric:
        text, labels = _COUNTERS[name]
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in sorted(self._count[name].items()):
            family.add_metric(values, count)
        return family

    def _add(self, name: str, *values: str, by: int = 1) -> None:
        counter = self._count[name]
        if values not in counter and len(counter) >= LABELS_MAX:
            values = ("other",) * len(values)
        counter[values] += by

    # -- events ---------------------------------------------------------------------------------

    def _due(self, event: Mapping[str, Any]) -> None:
        for node in event.get("nodes") or ():
            self._waiting.begin((str(event["run"]), int(event["gen"]), str(node)), int(event["at"]))

    def _began(self, event: Mapping[str, Any]) -> None:
        node, at = _node(event), int(event["at"])
        waited = self._waiting.end(node, at)
        if waited is not None:
            self._wait.observe(waited)
        self._running.end(node, at)  # an attempt that was lost is not what the last one took
        self._running.begin(node, at)

    def _retry(self, event: Mapping[str, Any]) -> None:
        self._running.end(_node(event), int(event["at"]))
        self._add("headgate_node_retries")

    def _lost(self, event: Mapping[str, Any]) -> None:
        self._running.end(_node(event), int(event["at"]))
        self._add("headgate_executions_lost")

    def _ended(self, event: Mapping[str, Any]) -> None:
        node, outcome = _node(event), str(event.get("outcome"))
        self._waiting.end(node, 0)
        took = self._running.end(node, int(event["at"]))
        if took is not None and outcome in self._duration:
            self._duration[outcome].observe(took)
        self._add("headgate_nodes", outcome)
        self._of_tenant("headgate_tenant_nodes", event, outcome)

    def _adopted(self, event: Mapping[str, Any]) -> None:
        self._add("headgate_nodes_adopted", by=len(event.get("nodes") or ()))

    def _run_ended(self, event: Mapping[str, Any]) -> None:
        self._add("headgate_runs", str(event.get("outcome")))

    def _run_refused(self, event: Mapping[str, Any]) -> None:
        self._add("headgate_runs", "refused")
        self._of_tenant("headgate_tenant_refusals", event, "run")

    def _money_refused(self, event: Mapping[str, Any]) -> None:
        self._of_tenant("headgate_tenant_refusals", event, "execution")

    def _settled(self, event: Mapping[str, Any]) -> None:
        self._add("headgate_settlements", str(event.get("by")), str(event.get("kind")))
        for category, micros in (event.get("cats") or {}).items():
            if int(micros) > 0:
                self._of_tenant("headgate_tenant_charged_micros", event, str(category), by=int(micros))

    def _decided(self, event: Mapping[str, Any]) -> None:
        observed = "1" if str(event.get("observed") or "0") == "1" else "0"
        self._add("headgate_agent_decisions", str(event.get("action")), observed)

    def _level(self, event: Mapping[str, Any]) -> None:
        self._add("headgate_levels_entered", str(event.get("level")))

    def _repaired(self, event: Mapping[str, Any]) -> None:
        for kind in MENDS:
            if count := int(event.get(kind) or 0):
                self._add("headgate_sweeper_repairs", kind, by=count)

    def _of_tenant(self, name: str, event: Mapping[str, Any], *values: str, by: int = 1) -> None:
        counter, most = self._count[name], TENANTS_MAX * len(OUTCOMES)
        key = (str(event.get("tenant") or ""), *values)
        if key not in counter and len(counter) >= most:
            key = ("(others)", *values)
            if key not in counter and len(counter) >= most + LABELS_MAX:
                key = ("(others)", *("other" for _ in values))
        counter[key] += by


def _node(event: Mapping[str, Any]) -> Node:
    return str(event["run"]), int(event["gen"]), str(event["node"])


def _histogram(name: str, text: str, labels: tuple[str, ...], found: Mapping[tuple[str, ...], Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, each in found.items():
        family.add_metric(values, each.buckets(), each.total_s)
    return family


_OF_PLATFORM: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "headgate_nodes": ("Nodes that ended.", ("outcome",)),
    "headgate_nodes_adopted": ("Nodes that a later generation took over instead of running them.", ()),
    "headgate_runs": ("Runs that ended or were refused.", ("outcome",)),
    "headgate_node_retries": ("Attempts that failed and are tried again.", ()),
    "headgate_executions_lost": ("Executions whose worker died.", ()),
    "headgate_duplicate_deliveries": ("Messages of a node that was running elsewhere.", ()),
    "headgate_workers_dead": ("Workers that fell silent.", ()),
    "headgate_messages_dead": ("Messages that became dead letters.", ()),
    "headgate_settlements": ("Executions that were settled: by whom, and whether they were waste.", ("by", "kind")),
    "headgate_agent_decisions": ("Decisions of the cost agent; observed 1: nothing of it was applied.", ("action", "observed")),
    "headgate_levels_entered": ("Levels that tenants entered.", ("level",)),
    "headgate_notices_failed": ("Notifications that could not be delivered at a try.", ()),
    "headgate_sweeper_repairs": ("What sweeps found and mended.", ("kind",)),
    "headgate_ledger_differences": ("Counters that the audit found not to equal the ledger.", ()),
    "headgate_epochs": ("Epochs that were opened: Redis was restarted, or lost something.", ()),
}
_OF_TENANTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "headgate_tenant_nodes": ("Nodes that ended.", ("tenant", "outcome")),
    "headgate_tenant_charged_micros": ("What executions were charged, waste included.", ("tenant", "category")),
    "headgate_tenant_refusals": ("Runs, and executions of ordinary tasks, that were refused.", ("tenant", "what")),
}
_COUNTERS = {**_OF_PLATFORM, **_OF_TENANTS}

_EXPECTED: Mapping[str, Iterable[tuple[str, ...]]] = {
    **{name: [()] for name, (_, labels) in _COUNTERS.items() if not labels},
    "headgate_nodes": [(outcome,) for outcome in OUTCOMES],
    "headgate_runs": [(outcome,) for outcome in RUN_OUTCOMES],
    "headgate_agent_decisions": [(action, observed) for action in ACTIONS for observed in "01"],
    "headgate_sweeper_repairs": [(kind,) for kind in MENDS],
    "headgate_levels_entered": [(level,) for level in LEVELS],
    "headgate_settlements": [("signal", "settle"), ("sweeper", "settle")],
}
"""What is there from the beginning, at 0, so that the first one is seen as an increase."""

_ONES: Mapping[str, str] = {
    "node.duplicate": "headgate_duplicate_deliveries",
    "worker.dead": "headgate_workers_dead",
    "message.dead": "headgate_messages_dead",
    "notice.failed": "headgate_notices_failed",
    "ledger.differs": "headgate_ledger_differences",
    "epoch.opened": "headgate_epochs",
}
"""Events of which only the number counts."""

_TAKES: Mapping[str, Callable[[Tally, Mapping[str, Any]], None]] = {
    "node.due": Tally._due,
    "node.began": Tally._began,
    "node.retry": Tally._retry,
    "node.lost": Tally._lost,
    "node.ended": Tally._ended,
    "node.adopted": Tally._adopted,
    "run.ended": Tally._run_ended,
    "run.refused": Tally._run_refused,
    "money.refused": Tally._money_refused,
    "money.settled": Tally._settled,
    "decision.made": Tally._decided,
    "level.entered": Tally._level,
    "sweep.repaired": Tally._repaired,
}
TYPES = frozenset({*_ONES, *_TAKES})
"""Types of events that count."""
