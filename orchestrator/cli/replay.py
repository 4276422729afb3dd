"""The verb that replays: a run on record, or the log of one in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.exits import Exit
from orchestrator.cli.output import as_json, print_json, say
from orchestrator.cli.words import RUN

if TYPE_CHECKING:
    from orchestrator.replay import Replay

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

key_file = click.option("--key-file", type=_FILE, help="The key that the log was chained with; HEADGATE_LOG_KEY or the home's unless said.")


@click.command()
@click.argument("which", metavar="RUN|DIR")
@click.option("--generation", type=click.IntRange(min=1), help="Only this one; all unless said.")
@key_file
@as_json
@click.pass_context
def replay(context: click.Context, which: str, generation: int | None, key_file: Path | None, as_json: bool) -> None:
    """Make a run anew from its event log alone, and compare that with what is stored.

    RUN is the id of a run, the beginning of one, or `latest`. DIR is a folder of artifacts, such as artifacts/GRAPH/RUN, or a file
    events.jsonl in it; no database is needed then. Checked are the chain of the log (an event that was changed, dropped, added or
    moved is named), statuses and outcomes, decisions, and the ledger. Without the key the chain is not checked.

    Prints a line for each difference, and exits with 1 where there is one.
    """
    key = key_at(key_file)
    place = Path(which)
    from_files = os.sep in which or place.is_dir() or which.endswith(".jsonl")
    found = list(_of_files(place, generation, key) if from_files else _of_run(RUN.convert(which, None, context), generation, key))
    if as_json:
        print_json([{**asdict(each), "differences": list(each.differences)} for each in found])
    else:
        for each in found:
            _print(each)
    if key is None:
        say("the chain is not checked: there is no key here (--key-file, HEADGATE_LOG_KEY or the home's log.key)")
    if any(each.differences for each in found):
        raise click.exceptions.Exit(Exit.FAILED)


def key_at(file: Path | None) -> bytes | None:
    """Return the key of a file, else that of the setting or the home; None where there is none."""
    from orchestrator.log_key import known_key, read_key
    from orchestrator.settings import Settings

    return known_key(Settings.load()) if file is None else read_key(file)


def _of_run(name: str, generation: int | None, key: bytes | None) -> Iterator[Replay]:
    from orchestrator.cli.here import recorded_here
    from orchestrator.cli.reference import find_run
    from orchestrator.objects import open_objects
    from orchestrator.replay import replay_run
    from orchestrator.replay.record import generations

    client = recorded_here()
    engine, objects = client.engine, open_objects(client.settings.resolved_results_url())
    run_id = find_run(engine, name)
    for number in generations(engine, run_id) if generation is None else [generation]:
        yield replay_run(engine, run_id, number, key, objects)


def _of_files(place: Path, generation: int | None, key: bytes | None) -> Iterator[Replay]:
    from orchestrator.artifacts.event_log import files_in
    from orchestrator.replay import replay_file
    from tenancy.errors import Unknown

    none = True
    for path in files_in(place):
        found = replay_file(path, key)
        if generation is None or found.generation == generation:
            none = False
            yield found
    if none:
        raise Unknown(f"there is no log of generation {generation} in {place}")


def _print(found: Replay) -> None:
    name = f"run {found.run_id} generation {found.generation}"
    for difference in found.differences:
        click.echo(f"{name}: {difference}")
    if not found.differences:
        chain = "chain whole" if found.chained else "chain not checked"
        sizes = f"{found.events} events, {found.nodes} nodes, {found.entries} entries"
        click.echo(f"{name}: {found.outcome or found.status}, {sizes}, {chain}: agrees")
