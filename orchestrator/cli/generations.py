"""The verb that opens a run's next generation: rerun."""

from __future__ import annotations

import click

from orchestrator.cli.output import as_json, print_json
from orchestrator.cli.tenant import audited
from orchestrator.cli.words import BUDGET, RUN


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@click.option("--from", "below", multiple=True, metavar="NODE", help="Run this node again, and all that depends on it.")
@click.option("--node", "alone", multiple=True, metavar="NODE", help="Run this node again, and nothing that depends on it.")
@click.option("--budget", type=BUDGET, metavar="UNITS", help="Most that this generation may cost; as much as the one before unless said.")
@audited
@as_json
def rerun(
    run_id: str, below: tuple[str, ...], alone: tuple[str, ...], budget: str | None, reason: str, by: str | None, as_json: bool
) -> None:
    """Run what of a run has no success, in its next generation.

    What succeeded is adopted: it is not run again and costs nothing. RUN is the id of a run that has ended, the beginning of one, or
    `latest`.
    """
    if below and alone:
        raise click.UsageError("give --from or --node, not both")
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    client = running(Settings.load())
    found = find_run(client.engine, run_id)
    what, nodes = ("from", below) if below else ("node", alone) if alone else ("failed", None)
    handle = client.rerun(found, nodes, what, budget=budget, reason=reason, by=by)  # type: ignore[arg-type]
    if as_json:
        print_json({"run_id": handle.run_id, "generation": handle.generation})
        return
    click.echo(f"generation {handle.generation} of run {handle.run_id} is submitted; watch it with `headgate watch {handle.run_id}`")
