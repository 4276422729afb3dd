"""The verb `logs`: what the nodes of a run logged and printed."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from orchestrator.cli.exits import Exit, of_run
from orchestrator.cli.output import as_json, say
from orchestrator.cli.words import RUN

if TYPE_CHECKING:
    from orchestrator.handle import RunHandle
    from orchestrator.logs.line import LogLine

PERIOD_S: Final = 0.5
"""How often -f looks; less often where looking takes long."""

_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class RunNode(click.ParamType[tuple[str, str | None]]):
    """A run, or a node of one: RUN or RUN/NODE."""

    name = "run[/node]"

    def convert(
        self, value: str | tuple[str, str | None], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str | None]:
        if not isinstance(value, str):
            return value
        run, slash, node = value.partition("/")
        if slash and not node:
            self.fail(f"{value!r} names no node: write RUN, or RUN/NODE", param, ctx)
        return RUN.convert(run, param, ctx), node or None


@click.command()
@click.argument("what", metavar="RUN[/NODE]", type=RunNode())
@click.option("-f", "--follow", is_flag=True, help="Go on until the run, or the node, has ended; exit as `watch` does.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Only this attempt at the node.")
@as_json
def logs(what: tuple[str, str | None], follow: bool, attempt: int | None, as_json: bool) -> None:
    """Print what nodes logged and printed, by time.

    RUN is the id of a run, the beginning of one, or `latest`; NODE the id of a node of it. The last 256 KB of each attempt are kept,
    without what looks like a secret. With --json one object a line.
    """
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings

    run_id, node = what
    if attempt is not None and node is None:
        raise click.UsageError("--attempt is one at a node: write RUN/NODE")
    client = recorded(Settings.load())
    run = client.run(find_run(client.engine, run_id))
    try:
        sys.exit(_print(run, node, attempt, follow=follow, as_json=as_json))
    except KeyboardInterrupt:
        say("\nno longer following; the run goes on")
        sys.exit(Exit.DETACHED)


def _print(run: RunHandle, node: str | None, attempt: int | None, *, follow: bool, as_json: bool) -> Exit:
    from orchestrator.cli.service import runs
    from tenancy.errors import Unavailable

    reader = run.log_reader(node, attempt)
    missing = 0
    while True:
        began = time.monotonic()
        ended = _ended(run, node)  # before the lines are read: what ended has said all that it will
        lines = reader.more()
        _show(lines, as_json=as_json)
        if reader.missing > missing:
            say(f"{reader.missing - missing} lines were not kept: HEADGATE_NODE_LOG_BYTES says how much of a log is")
            missing = reader.missing
        if not follow or ended is not None:
            return Exit.OK if ended is None or not follow else ended
        if not runs(run.client.settings):
            raise Unavailable(f"the stack that ran {run.run_id} is gone; `headgate up` starts one that goes on with it")
        time.sleep(max(PERIOD_S, 4 * (time.monotonic() - began)))


def _ended(run: RunHandle, node: str | None) -> Exit | None:
    """Return how the run or the node ended as an exit code, None where it has not."""
    from orchestrator.store import read
    from orchestrator.store.run_nodes import node_standing

    engine = run.client.engine
    row = read.get_run(engine, run.run_id, run.generation)
    over = of_run(row.status, row.outcome) if row.status in ("ended", "refused") else None
    if node is None:
        return over
    outcome, _ = node_standing(engine, run.run_id, run.generation, node)
    if outcome is None:
        return over
    if outcome in ("succeeded", "skipped"):
        return Exit.OK
    return Exit.CANCELLED if outcome == "cancelled" else Exit.FAILED


def _show(lines: Sequence[LogLine], *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            click.echo(json.dumps(asdict(line), ensure_ascii=False))
            continue
        at = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(line.at))}.{int(line.at * 1000) % 1000:03d}"
        source = f"{line.logger}: " if line.logger else ""
        click.echo(f"{at}  {line.node}#{line.attempt}  {line.level:<7}  {source}{inert(line.text)}")
    if lines:
        sys.stdout.flush()


def inert(text: str) -> str:
    """Return a text that does nothing to a terminal but to be shown; its further lines are indented."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", text.replace("\r\n", "\n"))).replace("\n", "\n    ")
