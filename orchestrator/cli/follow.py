"""Following a run: the board while it goes on, its result when it is over."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.cli import board
from orchestrator.cli.exits import Exit, of_run
from orchestrator.cli.held import held
from orchestrator.cli.output import between, cause, money, print_json, say, seconds
from orchestrator.cli.service import runs
from orchestrator.handle import RunHandle
from orchestrator.store import read
from tenancy.errors import HeadgateError, RunFailed, Unavailable, WaitTimeout

PERIOD_S = 0.25
"""How often the board is drawn; less often where reading the record takes long."""
PROGRESS_S = 5.0
"""How often a line says how far the run is, where there is no terminal to draw on."""
FAILURES_SHOWN = 10


@dataclass(frozen=True)
class Following:
    """A run that a command follows, and what the command says when it stops doing so."""

    handle: RunHandle
    resume: str
    """How to watch on, for a person."""

    def to_the_end(self, timeout_s: float | None, *, as_json: bool) -> Exit:
        """Wait, print what came of it and return the exit code; Ctrl-C ends the waiting only.

        Raises WaitTimeout and Unavailable.
        """
        try:
            run = self._wait(timeout_s)
        except KeyboardInterrupt:
            say(f"\nno longer watching; {self.resume}")
            return Exit.DETACHED
        if as_json:
            print_json(read.show_json(self.handle.client.engine, run.run_id, run.generation))
        else:
            self._print_result(run)
        self._summarise(run)
        return of_run(run.status, run.outcome)

    def _wait(self, timeout_s: float | None) -> read.RunView:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        engine, run_id, generation = self.handle.client.engine, self.handle.run_id, self.handle.generation
        why: str | None = None
        tell_at, said = time.monotonic() + PROGRESS_S, ""
        with _drawing() as draw:
            while True:
                began = time.monotonic()
                run = read.get_run(engine, run_id, generation)
                if draw is not None:
                    tasks = board.lines(read.get_nodes(engine, run_id, generation), time.time())
                    draw.update(board.table(run, tasks, time.time()), refresh=True)
                elif began >= tell_at:
                    tell_at = began + PROGRESS_S
                    if (line := _progress(read.get_nodes(engine, run_id, generation), run)) != said:
                        said = line
                        say(line)
                if run.status in ("ended", "refused"):
                    return run
                if run.status == "held" and run.reason != why:
                    why = run.reason
                    say(held(self.handle.client, run, run.reason or ""))
                if not runs(self.handle.client.settings):
                    raise Unavailable(f"the stack that ran {run_id} is gone; {self.resume}")
                if until is not None and time.monotonic() >= until:
                    raise WaitTimeout(f"run {run_id} is still {run.status} after {timeout_s:g} s; {self.resume}")
                pause = max(PERIOD_S, 4 * (time.monotonic() - began))
                with suppress(WaitTimeout):
                    self.handle.wait(pause if until is None else max(0.01, min(pause, until - time.monotonic())))

    def _print_result(self, run: read.RunView) -> None:
        if of_run(run.status, run.outcome) is not Exit.OK:
            return
        try:
            result = self.handle.result()
        except RunFailed:
            return  # the last node was optional, and given up
        except HeadgateError as several_ends:
            say(str(several_ends))
            return
        import click

        click.echo(result if isinstance(result, str) else json.dumps(result, indent=2, ensure_ascii=False))

    def _summarise(self, run: read.RunView) -> None:
        took = seconds(between(run.submitted_at, run.finished_at))
        why = f" ({run.reason})" if run.reason else ""
        say(f"run {run.run_id} {run.outcome or run.status}{why} after {took}, cost {money(run.cost_micros)}")
        if run.outcome in (None, "succeeded"):
            return
        nodes = read.get_nodes(self.handle.client.engine, run.run_id, run.generation)
        failed = [node for node in nodes if node.outcome in ("failed", "timed_out")]
        for node in failed[:FAILURES_SHOWN]:
            say(f"  {node.id}: {node.outcome}: {cause(node.error) or node.reason or 'no reason on record'}")
        if len(failed) > FAILURES_SHOWN:
            say(f"  ... and {len(failed) - FAILURES_SHOWN} more: `headgate show {run.run_id}`")
        if skipped := [node for node in nodes if node.outcome == "skipped"]:
            say(f"  given up: {', '.join(node.id for node in skipped[:FAILURES_SHOWN])}{' ...' if len(skipped) > FAILURES_SHOWN else ''}")
        if changed := [f"{node.id} ({node.verdict})" for node in nodes if node.verdict]:
            say(f"  run in a cheaper way: {', '.join(changed[:FAILURES_SHOWN])}{' ...' if len(changed) > FAILURES_SHOWN else ''}")


def _progress(nodes: Sequence[read.NodeView], run: read.RunView) -> str:
    """Return how far a run is, in one line."""
    ended = sum(node.outcome is not None for node in nodes)
    failed = sum(node.outcome in ("failed", "timed_out") for node in nodes)
    running = sum(node.outcome is None and node.state == "running" for node in nodes)
    wrong = f", {failed} failed" if failed else ""
    return f"{ended} of {len(nodes)} nodes ended, {running} run{wrong}, cost {money(run.cost_micros)}"


@contextmanager
def _drawing() -> Iterator[Any]:
    """Give a live display on a terminal, None anywhere else."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=False) as live:
        yield live
