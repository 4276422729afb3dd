"""The verb that gives a run in flight more time: deadline."""

from __future__ import annotations

import click

from orchestrator.cli.output import as_json, print_json
from orchestrator.cli.tenant import audited
from orchestrator.cli.words import RUN

NAMED = 10


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@click.option("--timeout-s", type=click.IntRange(min=1), required=True, metavar="SECONDS", help="What an execution may take from now on.")
@click.option("--node", metavar="NODE", help="Only this node of the run.")
@audited
@as_json
def deadline(run_id: str, timeout_s: int, node: str | None, reason: str, by: str | None, as_json: bool) -> None:
    """Give the nodes of a run in flight, or one of them, more time. A timeout is never lowered.

    What has not begun has it for certain; what runs has it where its worker can give it (prefork pools), and the answer says where not.
    RUN is the id of a run in flight, the beginning of one, or `latest`.
    """
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    client = running(Settings.load())
    found = find_run(client.engine, run_id)
    try:
        extended = client.extend_deadline(found, timeout_s, node, reason=reason, by=by)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        said = {"waiting": extended.waiting, "running": list(extended.running), "kept": list(extended.kept)}
        print_json({"run_id": found, "node": node, "timeout_s": timeout_s, **said})
        return
    click.echo(f"run {found}: {timeout_s} s for {extended.waiting} nodes that have not begun, and for {len(extended.running)} that run")
    if extended.kept:
        more = len(extended.kept) - NAMED
        names = ", ".join(extended.kept[:NAMED]) + (f" and {more} more" if more > 0 else "")
        click.echo(f"keep the limit that they began with, until their next attempt: {names}")
