"""The verb that lets go on what its cost has ended: approve."""

from __future__ import annotations

from dataclasses import asdict

import click

from orchestrator.cli.audit import Since
from orchestrator.cli.exits import Exit
from orchestrator.cli.output import as_json, at, print_json, print_table, say
from orchestrator.cli.words import BUDGET, RUN


@click.command()
@click.argument("run_id", metavar="[RUN]", type=RUN, required=False)
@click.option("--tenant", metavar="ID", help="Instead of RUN: every run of this tenant that waits for an approval.")
@click.option(
    "--since", type=Since(), metavar="WHEN", help="With --tenant: that was ended from then on (30m, 2h, 7d ago, 2026-11-22T10:00)."
)
@click.option("--dry-run", is_flag=True, help="With --tenant: say which they are, and approve none.")
@click.option(
    "--budget", type=BUDGET, metavar="UNITS", help="Most that the next generation may cost; as much as the one before unless said."
)
@click.option("--by", help="Who approves; the user of this process unless said.")
@click.option("--reason", default="", help="Why it may go on; goes on record, and must be said.")
@as_json
def approve(
    run_id: str | None,
    tenant: str | None,
    since: float | None,
    dry_run: bool,
    budget: str | None,
    by: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Let a run go on that was terminated by its cost, or is held for approval: nothing else brings it back.

    What succeeded is adopted, what was revoked runs again. Doing it twice approves once. RUN is the id of a run, the beginning of one, or
    `latest`.
    """
    if (run_id is None) == (tenant is None):
        raise click.UsageError("say what to approve: RUN, or --tenant ID for all of a tenant's that wait")
    if run_id is not None and (since is not None or dry_run):
        raise click.UsageError("--since and --dry-run are for --tenant")
    if tenant is not None and budget is not None:
        raise click.UsageError("--budget is for one RUN; runs that are approved together keep theirs")
    if not reason.strip() and not dry_run:
        raise click.UsageError("say why it may go on: --reason TEXT")
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    client = running(Settings.load())
    if run_id is not None:
        handle = client.approve(find_run(client.engine, run_id), budget=budget, reason=reason, by=by)
        if as_json:
            print_json({"run_id": handle.run_id, "generation": handle.generation})
        else:
            click.echo(f"run {handle.run_id} goes on in generation {handle.generation}; watch it with `headgate watch {handle.run_id}`")
        return
    assert tenant is not None
    _all(tenant, since, reason, by, dry_run=dry_run, as_json=as_json)


def _all(tenant: str, since: float | None, reason: str, by: str | None, *, dry_run: bool, as_json: bool) -> None:
    from orchestrator.approval import waiting
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings
    from orchestrator.store.read import get_tenant

    client = running(Settings.load())
    get_tenant(client.engine, tenant)
    if dry_run:
        found = waiting(client.engine, tenant=tenant, since=since)
        if as_json:
            print_json([asdict(each) for each in found])
        elif not found:
            click.echo(f"no run of tenant {tenant} waits for an approval")
        else:
            print_table(
                ("run", "generation", "graph", "why", "since"), [(e.run_id, str(e.generation), e.graph, e.why, at(e.at)) for e in found]
            )
        return
    done = client.approve_all(tenant, since=since, reason=reason, by=by)
    if as_json:
        print_json([asdict(each) for each in done])
    else:
        for each in done:
            if each.generation is not None:
                click.echo(f"run {each.run_id} goes on in generation {each.generation}")
            else:
                say(f"headgate: {each.error}")
        click.echo(f"{sum(each.generation is not None for each in done)} of {len(done)} runs go on")
    if any(each.error for each in done):
        raise click.exceptions.Exit(Exit.REFUSED)
