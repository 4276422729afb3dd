"""Verbs that keep the record: prune, migrate."""

from __future__ import annotations

import getpass

import click

from orchestrator.cli.output import as_json, print_json, say
from orchestrator.cli.tenant import audited


@click.command()
@click.option("--keep-days", type=click.IntRange(1, 36_500), required=True, help="What ended in the last days keeps its log.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@audited
@as_json
def prune(keep_days: int, dry_run: bool, reason: str, by: str | None, as_json: bool) -> None:
    """Let go of the events of runs that ended more than --keep-days ago, of ordinary tasks, and of what requests were answered.

    Runs, nodes, results, the ledger, decisions, reports, the audit, and events that belong to no run stay. A run without events cannot be
    replayed or explained from the record any more; the log in its artifacts can. It goes piece by piece, so that what runs is recorded
    meanwhile, and may be ended and begun again.
    """
    from cost.period import MS_PER_DAY
    from orchestrator.cli.here import recorded_here, running_here
    from orchestrator.recorder.ask import ask
    from orchestrator.recorder.pruning import prunable
    from orchestrator.store.read import open_record
    from tenancy.errors import Refused

    if dry_run:
        client = recorded_here()
        with open_record(client.engine) as connection:
            found = prunable(connection, client.kernel.link.now_ms() - keep_days * MS_PER_DAY)
        _pruned(found, as_json, "would go: ")
        return
    link = running_here().kernel.link
    before, done = link.now_ms() - keep_days * MS_PER_DAY, {"events": 0, "runs": 0, "tasks": 0, "answers": 0}
    while True:
        answer = ask(link, "request.prune", {"before": before, "reason": reason, "by": by or getpass.getuser()})
        if answer["status"] == "invalid":
            raise Refused(f"nothing goes: {answer['reason']}")
        done = {name: count + int(answer[name]) for name, count in done.items()}
        if answer["status"] == "done":
            break
        say(f"{done['events']} events of {done['runs']} runs and {done['tasks']} tasks so far")
    _pruned(done, as_json, "gone: ")


def _pruned(found: dict[str, int], as_json: bool, what: str) -> None:
    if as_json:
        print_json(found)
    else:
        click.echo(f"{what}{found['events']} events of {found['runs']} runs and {found['tasks']} ordinary tasks")


@click.command()
@click.option("--to", metavar="REVISION", help="The revision to go to, up or down; without it, the one that this version needs.")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where the record is at another one.")
@audited
@as_json
def migrate(to: str | None, check: bool, reason: str, by: str | None, as_json: bool) -> None:
    """Bring the tables of the record to a revision, with what is in them, all or nothing.

    On SQLite the recorder does it when it starts. On PostgreSQL it makes a record, and leaves one of an older version to this verb; stop
    the recorder first. An empty database is made here, too. To go back to an older Headgate, go down to its revision, then start it.
    """
    from orchestrator.cli.exits import Exit
    from orchestrator.migrations.revisions import HEAD, migrate_record, revision_of
    from orchestrator.settings import Settings
    from orchestrator.store.engine import open_engine
    from orchestrator.store.read import open_record

    engine = open_engine(Settings.load().resolved_database_url(), writer=not check)
    if check:
        with open_record(engine) as connection:
            was, now = revision_of(connection), to or HEAD
    else:
        was, now = migrate_record(engine, to or HEAD, reason, by or getpass.getuser())
    if as_json:
        print_json({"was": was, "now": was if check else now, "needed": now})
    elif check:
        click.echo(f"the record is at revision {was}" + ("" if was == now else f", and {now} is needed"))
    else:
        click.echo(f"the record is at revision {now}" + ("" if was == now else f"; it was at {was}"))
    if check and was != now:
        raise click.exceptions.Exit(Exit.FAILED)
