"""What the checker looks at: the log, the graphs, the rows of the record, and what Redis counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

RunKey = tuple[str, int]
Execution = tuple[str, int, str, int]
"""Run, generation, node, attempt."""


@dataclass(frozen=True)
class NodeShape:
    """What the graph says of a node: its parents, whether it is required, and what each success of it charges by category, in micros."""

    parents: tuple[str, ...] = ()
    required: bool = True
    charge: Mapping[str, int] = field(default_factory=dict)
    may_fail: bool = False
    """Its task is one that fails by itself."""
    join: str | int = "all_succeeded"
    """all_succeeded, all_done, or the n of at_least(n)."""
    when: tuple[str, str, bool] | None = None
    """Its condition: the parent that it asks about, the JSON text that its result is compared with, and whether it must equal it."""
    over: str | int | None = None
    """Of a map: its join, which is over its items; None of any other node. Its parents it waits for as all_succeeded does."""
    items: tuple[str, ...] = ()
    """Of a map: the nodes that it became."""


@dataclass(frozen=True)
class RunRow:
    """A run as SQL has it."""

    run_id: str
    tenant: str
    status: str
    outcome: str | None
    cost_micros: int
    generation: int = 1


@dataclass(frozen=True)
class Entry:
    """An entry of the ledger."""

    run_id: str
    generation: int
    node: str
    attempt: int
    tenant: str
    kind: str
    category: str
    amount: int
    day: int

    @property
    def execution(self) -> Execution:
        return (self.run_id, self.generation, self.node, self.attempt)


@dataclass(frozen=True)
class Event:
    """An event of the log at its position."""

    epoch: int
    seq: int
    data: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.data["t"])

    @property
    def run(self) -> RunKey:
        return (str(self.data["run"]), int(self.data["gen"]))

    @property
    def node(self) -> tuple[str, int, str]:
        return (*self.run, str(self.data["node"]))

    @property
    def execution(self) -> Execution:
        return (*self.node, int(self.data["attempt"]))

    @property
    def endings(self) -> dict[str, str]:
        """The nodes that have their outcome by this event."""
        if self.kind == "node.ended":
            return {str(self.data["node"]): str(self.data["outcome"])}
        return dict.fromkeys(self.data["nodes"], "succeeded") if self.kind == "node.adopted" else {}

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


@dataclass(frozen=True)
class Evidence:
    """Everything that is looked at, read when all is quiet.

    events: the whole log of SQL, in order. shapes: the graph of each submitted run. outcomes: of each node's row in SQL.
    counters: `held` and `running` of each tenant in Redis. spent: the day counters in Redis by (tenant, day). leftovers: how much is left
    in Redis under names where nothing may be left. incidents: what the recorder itself found wrong. submitted: keys of submissions that
    returned, with the run each returned. replays: what replaying each run from its log found to differ.
    """

    events: Sequence[Event]
    shapes: Mapping[RunKey, Mapping[str, NodeShape]]
    runs: Sequence[RunRow]
    outcomes: Mapping[tuple[str, int, str], str | None]
    ledger: Sequence[Entry]
    counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    spent: Mapping[tuple[str, int], Mapping[str, int]] = field(default_factory=dict)
    leftovers: Mapping[str, int] = field(default_factory=dict)
    incidents: Sequence[str] = ()
    submitted: Mapping[str, str] = field(default_factory=dict)
    keys: Sequence[str] = ()
    """The key of each run in SQL."""
    replays: Sequence[str] = ()


@dataclass(frozen=True)
class Violation:
    """A promise that was broken: which, by what, and how."""

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"


def with_items(e: Evidence) -> Evidence:
    """Return the evidence with the items of maps among the nodes of their graphs, as far as the log says that they came to be."""
    shapes = {run: dict(shape) for run, shape in e.shapes.items()}
    for event in e.events:
        if event.kind not in ("node.expanded", "node.adopted") or event.run not in shapes:
            continue
        shape = shapes[event.run]
        if event.kind == "node.expanded":
            first, node = int(event.data["first"]), str(event.data["node"])
            names = [f"{node}.{at}" for at in range(first, first + int(event.data["count"]))]
        else:
            names = [name for name in event.endings if name not in shape]
        for name in names:
            node = name.rpartition(".")[0]
            if name in shape or node not in shape or shape[node].over is None:
                continue
            of = shape[node]
            shape[name] = NodeShape(of.parents, of.required and of.over == "all_succeeded", {}, of.may_fail)
            shape[node] = replace(of, items=(*of.items, name))
    return replace(e, shapes=shapes)
