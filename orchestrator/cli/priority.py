"""The verb that changes the priority of a run in flight: priority."""

from __future__ import annotations

import click

from orchestrator.cli.output import as_json, print_json
from orchestrator.cli.tenant import audited
from orchestrator.cli.words import RUN
from tenancy.priorities import Priority


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@click.argument("level", type=click.Choice([p.name for p in Priority], case_sensitive=False))
@audited
@as_json
def priority(run_id: str, level: str, reason: str, by: str | None, as_json: bool) -> None:
    """Give all of a run that has not begun this priority, among its tenant's work.

    RUN is the id of a run in flight, the beginning of one, or `latest`.
    """
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    client = running(Settings.load())
    found = find_run(client.engine, run_id)
    changed = client.reprioritise(found, level, reason=reason, by=by)
    if as_json:
        print_json({"run_id": found, "priority": level, "changed": changed})
    else:
        click.echo(f"run {found} {'has' if changed else 'had'} the priority {level}")
