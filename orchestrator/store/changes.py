"""What a batch of events changes in the record: rows, ready for statements over many rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
"""Column name to value; in an update None means: leave as it is."""


@dataclass
class Changes:
    """The rows of one batch; each row has every column that its statement names.

    rebuilt: the time (ms) at which state was rebuilt from the record before these events, or None. What was open or
    running in the record at that moment is not any more.
    events, ledger, usage, audit: rows to insert.
    new_runs: rows of runs that may not be there yet; runs, nodes: updates, one for each run and node; `grown` is added to a run's total.
    adopted: nodes (run_id, generation, node_id, adopted) that take over the result of an earlier generation.
    decisions: rows of decisions of the cost agent; applied: what was applied of them, by their ids.
    entered: by tenant, what made it enter a level of its budget.
    pauses: by scope, the row of a pause that began, None for one that is over.
    fences: by scope, the row of its last fence.
    requests: requests in their order, to be decided inside the transaction.
    notices, tries: notifications to be delivered, and what became of tries to.
    incidents: rows for what cannot be: an event that does not read as its type says.
    ended: runs (`run.generation`) that came to their end, to be announced after the commit.
    """

    rebuilt: int | None = None
    events: list[Row] = field(default_factory=list)
    new_runs: list[Row] = field(default_factory=list)
    runs: dict[tuple[str, int], Row] = field(default_factory=dict)
    nodes: dict[tuple[str, int, str], Row] = field(default_factory=dict)
    ledger: list[Row] = field(default_factory=list)
    usage: list[Row] = field(default_factory=list)
    audit: list[Row] = field(default_factory=list)
    adopted: list[Row] = field(default_factory=list)
    decisions: list[Row] = field(default_factory=list)
    applied: list[Row] = field(default_factory=list)
    pauses: dict[str, Row | None] = field(default_factory=dict)
    entered: dict[str, str] = field(default_factory=dict)
    fences: dict[str, Row] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    notices: list[Row] = field(default_factory=list)
    tries: list[Row] = field(default_factory=list)
    incidents: list[Row] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
