"""The verb that checks the chains of the whole log: verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from orchestrator.cli.exits import Exit
from orchestrator.cli.output import as_json, print_json
from orchestrator.cli.replay import key_at, key_file


@click.command()
@click.option("--platform", is_flag=True, help="Only what belongs to no run: epochs, workers, tenants, prices, pauses, control.")
@key_file
@as_json
def verify(platform: bool, key_file: Path | None, as_json: bool) -> None:
    """Check the chain of every event on record: the platform's own, each run's, and ordinary tasks'.

    An event that was changed, dropped, added or moved is named, with its position. `headgate replay` says more about one run.
    Prints a line for each difference, and exits with 1 where there is one.
    """
    from orchestrator.cli.here import recorded_here
    from orchestrator.replay.verify import verify as checked
    from tenancy.errors import HeadgateError

    key = key_at(key_file)
    if key is None:
        raise HeadgateError(
            "there is no key here, and nothing can be checked without it: --key-file, HEADGATE_LOG_KEY or the home's log.key"
        )
    chains = events = 0
    broken = []
    for found in checked(recorded_here().engine, key, platform=platform):
        chains, events = chains + 1, events + found.events
        if found.differences:
            broken.append(found)
            if not as_json:
                for difference in found.differences:
                    click.echo(f"{found.chain}: {difference}")
    if as_json:
        print_json(
            {"chains": chains, "events": events, "broken": [{**asdict(each), "differences": list(each.differences)} for each in broken]}
        )
    elif not broken:
        click.echo(f"{chains} chains with {events} events: whole")
    if broken:
        raise click.exceptions.Exit(Exit.FAILED)
