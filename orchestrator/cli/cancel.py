"""The verb that ends work before its time: cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import as_json, print_json
from orchestrator.cli.words import RUN

if TYPE_CHECKING:
    from orchestrator.client import Client


@click.command()
@click.argument("run_id", metavar="[RUN]", type=RUN, required=False)
@click.option("--node", "nodes", multiple=True, metavar="NODE", help="Only this node of the run.")
@click.option("--subgraph", is_flag=True, help="With --node: also all that only these nodes feed.")
@click.option("--tenant", metavar="ID", help="Instead of RUN: every run of this tenant.")
@click.option("--all", "everything", is_flag=True, help="Instead of RUN: every run of everybody.")
@click.option("--now", is_flag=True, help="End what runs, too (prefork pools); without it what runs is told, and ends by itself.")
@click.option("--reason", default="cancelled from the command line", show_default=True, help="Goes on record.")
@click.option("--by", help="Who cancels; the user of this process unless said.")
@as_json
def cancel(
    run_id: str | None,
    nodes: tuple[str, ...],
    subgraph: bool,
    tenant: str | None,
    everything: bool,
    now: bool,
    reason: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Cancel a run, nodes of it, or all runs of a tenant or of everybody: once this returns nothing of that begins.

    RUN is the id of a run, the beginning of one, or `latest`.
    """
    if sum((run_id is not None, tenant is not None, everything)) != 1:
        raise click.UsageError("say what to cancel: RUN, --tenant ID or --all")
    if (nodes and run_id is None) or (subgraph and not nodes):
        raise click.UsageError("--node is for nodes of RUN, and --subgraph for what only they feed")
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    client = running(Settings.load())
    if run_id is None:
        scope = "platform" if tenant is None else f"tenant:{tenant}"
        runs = client.cancel_all(scope, now=now, reason=reason, by=by)
        if as_json:
            print_json({"scope": scope, "cancelled": runs})
        else:
            click.echo(f"{len(runs)} runs are cancelled")
        return
    found = find_run(client.engine, run_id)
    cancelled = client.cancel(found, list(nodes) or None, below=subgraph, now=now, reason=reason, by=by)
    if as_json:
        print_json({"run_id": found, "cancelled": cancelled, **({"nodes": list(nodes)} if nodes else {})})
    elif nodes:
        click.echo(f"{', '.join(nodes)} of run {found} {'will not begin' if cancelled else 'had ended before'}")
    elif not cancelled:
        click.echo(f"run {found} had ended before")
    else:
        click.echo(_cancelling(client, found))


def _cancelling(client: Client, run_id: str) -> str:
    """Say how far a run that was just cancelled is: what runs of it is not broken off."""
    from orchestrator.store import read

    running = sum(node.state == "running" for node in read.get_nodes(client.engine, run_id))
    if read.get_run(client.engine, run_id).status == "ended":
        return f"run {run_id} is cancelled"
    if not running:
        return f"run {run_id} is being cancelled"
    nodes = "1 running node ends" if running == 1 else f"{running} running nodes end"
    return f"run {run_id} is being cancelled; {nodes} first"
