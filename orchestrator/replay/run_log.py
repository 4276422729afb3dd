"""The log of one generation of a run, as it is checked: wherever it was read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.chain import Head
from orchestrator.recorder.projection import Entry
from orchestrator.store.changes import Row
from orchestrator.store.position import Position


@dataclass(frozen=True)
class Step:
    """An event of a log: its position, its text, and its link.

    passed: whether it tells of a rebuild that the run went through. In SQL its link is another chain's, so None stands here.
    """

    position: Position
    text: str
    link: str | None
    passed: bool = False

    @property
    def entry(self) -> Entry:
        """The event as the recorder reads it."""
        return Entry(self.position, self.text)


@dataclass(frozen=True)
class End:
    """The sealed end of a chain, as it is kept; `key_id` tells the key."""

    head: Head
    seal: str
    key_id: str


@dataclass(frozen=True)
class RunLog:
    """A log, and what it begins with.

    submitted: the row of the run; its columns that no event changes are taken from it, the others are made anew.
    spec: the graph's canonical JSON, None where there is none.
    steps: the events in the order in which they were found.
    end: None where there is none.
    after: rebuilds behind the last event, which are no part of the chain yet.
    problems: what was found to be wrong when the log was read.
    rows: what is on record beside, the rows of `run`, `node`, `ledger`, `usage` and `event`; empty for a file.
    """

    run_id: str
    generation: int
    submitted: Row
    spec: bytes | None
    steps: Sequence[Step]
    end: End | None
    after: Sequence[Step] = ()
    problems: Sequence[str] = ()
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Run and generation."""
        return f"{self.run_id}.{self.generation}"
