"""The verb that sends traces once more: of runs that were over before anybody took their spans."""

from __future__ import annotations

import click

from orchestrator.cli.output import as_json, print_json
from orchestrator.cli.words import RUN


@click.group()
def trace() -> None:
    """Spans of runs, for OpenTelemetry."""


@trace.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=RUN)
@click.option("--generation", type=click.IntRange(min=1), help="Only this one; all unless said.")
@click.option("--endpoint", metavar="URL", help="Where they go by OTLP over HTTP; HEADGATE_OTLP_ENDPOINT unless said.")
@as_json
def export(runs: tuple[str, ...], generation: int | None, endpoint: str | None, as_json: bool) -> None:
    """Send the spans of runs that are over, whenever they were: as the recorder does when a run ends, with the same ids.

    RUN is the id of a run, the beginning of one, or `latest`. A collector that has them already gets the same spans again. What its
    producer does not sample has none.
    """
    from orchestrator.cli.here import recorded_here
    from orchestrator.cli.reference import find_run
    from orchestrator.replay.record import generations
    from orchestrator.store.read import get_run
    from orchestrator.store.tables import LIVE
    from orchestrator.trace.exporter import TraceExporter, open_exporter
    from tenancy.errors import Refused, Unavailable

    client = recorded_here()
    place = endpoint or client.settings.otlp_endpoint
    if place is None:
        raise click.UsageError("nobody is there to take spans; name who is by --endpoint or HEADGATE_OTLP_ENDPOINT")
    if not place.startswith(("http://", "https://")):
        raise click.UsageError(f"--endpoint {place!r} is no URL such as http://collector:4318")
    engine = client.engine
    exporter = TraceExporter(engine, open_exporter(place))
    found = []
    for name in runs:
        run_id = find_run(engine, name)
        for number in generations(engine, run_id) if generation is None else [generation]:
            if get_run(engine, run_id, number).status in LIVE:
                raise Refused(f"run {run_id} generation {number} is not over; its spans are sent by the recorder when it is")
            before = exporter.sent
            if not exporter.send((run_id, number)):
                raise Unavailable(f"{place} did not take the spans of run {run_id}; what was sent before is the same when it is sent again")
            found.append({"run": run_id, "generation": number, "spans": exporter.sent - before})
            if not as_json:
                click.echo(f"run {run_id} generation {number}: {exporter.sent - before} spans sent")
    if as_json:
        print_json(found)
