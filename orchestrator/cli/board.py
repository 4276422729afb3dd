"""The board: a run in one line per task name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli.held import standing
from orchestrator.cli.output import between, seconds
from orchestrator.store.read import NodeView, RunView

if TYPE_CHECKING:
    from rich.table import Table


@dataclass
class Line:
    """What became of all nodes of one task; `time_s` sums their running times, `left_out` those that will not run."""

    task: str
    total: int = 0
    done: int = 0
    running: int = 0
    failed: int = 0
    left_out: int = 0
    time_s: float = 0.0
    cost_micros: int = 0


def lines(nodes: Iterable[NodeView], now: float) -> list[Line]:
    """Return a line for each task, in the order of the graph. `now` is epoch seconds."""
    found: dict[str, Line] = {}
    for node in nodes:
        name = node.task or "?"
        line = found.setdefault(name, Line(name))
        line.total += 1
        line.done += node.outcome == "succeeded"
        line.failed += node.outcome in ("failed", "timed_out")
        line.left_out += node.outcome in ("skipped", "cancelled", "upstream_failed")
        line.running += node.outcome is None and node.state == "running"
        line.time_s += between(node.started_at, node.finished_at or (now if node.state == "running" else None)) or 0.0
        line.cost_micros += node.cost_micros
    return list(found.values())


def table(run: RunView, tasks: Iterable[Line], now: float) -> Table:
    """Return the board of a run as it is drawn on a terminal."""
    from rich.table import Table
    from rich.text import Text

    from cost.money import format_units

    elapsed = seconds(between(run.submitted_at, run.finished_at or now))
    title = f"{run.graph}  {run.run_id}  {standing(run)}  {elapsed}"
    drawn = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    drawn.add_column("task", no_wrap=True)
    for heading in ("done", "running", "failed", "left out", "time", "cost"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for line in tasks:
        drawn.add_row(
            Text(line.task),
            Text(f"{line.done}/{line.total}", "green" if line.done == line.total else ""),
            Text(str(line.running or "-"), "cyan" if line.running else "dim"),
            Text(str(line.failed or "-"), "red" if line.failed else "dim"),
            Text(str(line.left_out or "-"), "yellow" if line.left_out else "dim"),
            seconds(line.time_s),
            format_units(line.cost_micros),
        )
    return drawn
