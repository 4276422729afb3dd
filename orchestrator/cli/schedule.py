"""Verbs about schedules: create, list, show, set, pause, resume, delete; and backfill."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.exits import Exit, of_run
from orchestrator.cli.here import recorded_here, running_here
from orchestrator.cli.output import as_json, at, money, print_fields, print_json, print_table, say
from orchestrator.cli.tenant import audited
from orchestrator.cli.words import BUDGET, TASKS

if TYPE_CHECKING:
    from orchestrator.graph import Graph
    from orchestrator.schedules.terms import Terms
    from orchestrator.store.schedules import ScheduleView, TickView

PRIORITIES = ("CRITICAL", "HIGH", "NORMAL", "LOW", "BATCH")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[int]):
    """Whole seconds, or a number with s, m, h or d."""

    name = "duration"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,9})([smhd]?)", value)
        if match is None:
            self.fail(f"{value!r} is no duration; write seconds, or 90s, 15m, 6h, 1d", param, ctx)
        return int(match[1]) * _UNITS_S[match[2]]


name_ = click.argument("name", metavar="NAME")
tenant_ = click.option("--tenant", default="default", show_default=True, help="Whose schedule.")
tasks_ = click.option("--tasks", type=TASKS, default=(), metavar="MODULE", help="Modules with the tasks of a graph in JSON.")


def times(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say when, and with what money."""
    for option in reversed(
        (
            click.option("--cron", metavar="EXPRESSION", help='Minute, hour, day, month, weekday: "30 2 * * *"; or @daily and the like.'),
            click.option("--every", "every_s", type=Duration(), metavar="DURATION", help="Instead of --cron: 90s, 15m, 6h, 1d."),
            click.option("--timezone", metavar="ZONE", help="Of cron and dates: an IANA name, such as Europe/Berlin; UTC unless said."),
            click.option("--budget", type=BUDGET, metavar="UNITS", help="The most that each run may cost, such as 0.06."),
            click.option("--priority", type=click.Choice(PRIORITIES, case_sensitive=False), help="Among the tenant's work."),
        )
    ):
        command = option(command)
    return command


def rules(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what becomes of missed times, and of those that come while a run is live."""
    for option in reversed(
        (
            click.option(
                "--catch-up", type=click.Choice(("none", "one", "all")), help="Which of the times that were missed run; one unless said."
            ),
            click.option(
                "--overlap",
                type=click.Choice(("skip", "queue", "allow")),
                help="A time while a run is live: left out, waits, or runs; skip unless said.",
            ),
            click.option("--jitter", "jitter_s", type=Duration(), metavar="DURATION", help="Start each time so much later at most."),
        )
    ):
        command = option(command)
    return command


@click.group()
def schedule() -> None:
    """Run graphs at times: by cron, or every so often."""


@schedule.command()
@name_
@click.argument("target", metavar="TARGET")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@tenant_
@times
@rules
@tasks_
@audited
@as_json
def create(
    name: str,
    target: str,
    parameters: tuple[str, ...],
    tenant: str,
    tasks: tuple[str, ...],
    reason: str,
    by: str | None,
    as_json: bool,
    **terms: Any,
) -> None:
    """Have a graph run at times from now on.

    TARGET and NAME=VALUE as for `run`. Where a value is {"$schedule": "time"} or {"$schedule": "date"}, each run gets its own scheduled
    time or day.
    """
    graph = _load(target, parameters, tasks)
    made = running_here().schedules.create(name, graph, tenant=tenant, reason=reason, by=by, **_given(terms))
    if as_json:
        print_json(_as_json(made))
    else:
        click.echo(f"schedule {name} created, next at {_local(made.next_at, made.terms)}")


@schedule.command("list")
@click.option("--tenant", help="Only those of this tenant.")
@as_json
def list_(tenant: str | None, as_json: bool) -> None:
    """List schedules."""
    found = recorded_here().schedules.list(tenant)
    if as_json:
        print_json([_as_json(each) for each in found])
        return
    rows = [(each.tenant, each.name, each.graph, _when(each.terms), _next(each)) for each in found]
    print_table(("tenant", "schedule", "graph", "times", "next"), rows)


@schedule.command()
@name_
@tenant_
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many of its times are shown.")
@as_json
def show(name: str, tenant: str, limit: int, as_json: bool) -> None:
    """Show a schedule, and what became of its newest times."""
    client = recorded_here()
    found = client.schedules.show(name, tenant=tenant)
    ticks = client.schedules.ticks(name, tenant=tenant, limit=limit)
    if as_json:
        print_json({**_as_json(found), "ticks": [asdict(tick) for tick in ticks]})
        return
    own = {"schedule": name, "tenant": tenant, "graph": found.graph, "times": _when(found.terms), "next": _next(found)}
    kept = {"catch up": found.terms.catch_up, "overlap": found.terms.overlap, "jitter": f"{found.terms.jitter_s} s"}
    print_fields({**own, **kept, "budget": money(found.terms.budget), "priority": _priority(found.terms), "created": at(found.created_at)})
    if ticks:
        print_table(("time", "is", "run", "why"), [_row(tick, found.terms) for tick in ticks])


@schedule.command("set")
@name_
@click.argument("target", metavar="[TARGET]", required=False)
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@tenant_
@times
@rules
@tasks_
@audited
@as_json
def set_(
    name: str,
    target: str | None,
    parameters: tuple[str, ...],
    tenant: str,
    tasks: tuple[str, ...],
    reason: str,
    by: str | None,
    as_json: bool,
    **terms: Any,
) -> None:
    """Change what is named of a schedule, its graph too where there is a TARGET."""
    graph = None if target is None else _load(target, parameters, tasks)
    changes = _given(terms)
    if graph is None and not changes:
        raise click.UsageError("there is nothing to set; name what changes, such as --cron, or a TARGET")
    changed = running_here().schedules.set(name, tenant=tenant, graph=graph, reason=reason, by=by, **changes)
    if as_json:
        print_json({"schedule": name, "tenant": tenant, "changed": {field: list(pair) for field, pair in changed.items()}})
        return
    for field, (old, new) in changed.items():
        click.echo(f"{field}: {_value(old)} -> {_value(new)}")
    if not changed:
        click.echo(f"schedule {name} is so already")


@schedule.command()
@name_
@tenant_
@audited
@as_json
def pause(name: str, tenant: str, reason: str, by: str | None, as_json: bool) -> None:
    """Submit nothing of a schedule until it is resumed; its runs go on."""
    _done(name, tenant, "paused", running_here().schedules.pause(name, tenant=tenant, reason=reason, by=by), as_json)


@schedule.command()
@name_
@tenant_
@audited
@as_json
def resume(name: str, tenant: str, reason: str, by: str | None, as_json: bool) -> None:
    """Let a paused schedule go on; times that passed meanwhile are not made up, but `backfill` can."""
    _done(name, tenant, "resumed", running_here().schedules.resume(name, tenant=tenant, reason=reason, by=by), as_json)


@schedule.command()
@name_
@tenant_
@audited
@as_json
def delete(name: str, tenant: str, reason: str, by: str | None, as_json: bool) -> None:
    """Forget a schedule; its runs go on, and stay on record."""
    running_here().schedules.delete(name, tenant=tenant, reason=reason, by=by)
    _done(name, tenant, "deleted", True, as_json)


@click.command()
@click.argument("target", metavar="SCHEDULE|TARGET")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--from", "since", required=True, metavar="TIME", help="First time of the range: 2026-11-01, or 2026-11-01T06:00.")
@click.option("--to", "until", required=True, metavar="TIME", help="The range ends before this time.")
@click.option(
    "--concurrency", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N", help="Runs that may be live at once."
)
@tenant_
@times
@tasks_
@audited
@as_json
def backfill(
    target: str,
    parameters: tuple[str, ...],
    since: str,
    until: str,
    concurrency: int,
    tenant: str,
    tasks: tuple[str, ...],
    reason: str,
    by: str | None,
    as_json: bool,
    **terms: Any,
) -> None:
    """Run a schedule, or a graph, for each time of a range that has no run yet, and wait for all of them.

    SCHEDULE is the name of a schedule; TARGET and NAME=VALUE as for `run`, with --cron or --every. What is interrupted goes on with the
    same command.
    """
    given, what = _given(terms), _what(target, parameters, tasks)
    if isinstance(what, str) and (given or parameters):
        raise click.UsageError(f"{target} is a schedule: it has its own times and graph; give --from, --to and --concurrency")
    client, rows, code = running_here(), [], Exit.OK
    try:
        for each in client.backfill(what, since, until, tenant=tenant, concurrency=concurrency, reason=reason, by=by, **given):
            ended = of_run(each.run.status, each.run.outcome)
            code = code if ended == Exit.OK else ended
            row = {"time": each.at.isoformat(), "run_id": each.run.run_id, "outcome": each.run.outcome, "earlier": each.earlier}
            rows.append(row)
            if not as_json:
                click.echo(f"{row['time']}  {row['run_id']}  {row['outcome'] or 'refused'}{'  (earlier)' if each.earlier else ''}")
    except KeyboardInterrupt:
        say("what was submitted goes on; the same command does the rest")
        raise click.Abort from None
    if as_json:
        print_json(rows)
    say(f"{len(rows)} time{'' if len(rows) == 1 else 's'}, {sum(not row['earlier'] for row in rows)} of them run now")
    sys.exit(code)


def _load(target: str, parameters: tuple[str, ...], tasks: tuple[str, ...]) -> Graph:
    from orchestrator.cli.target import load_target
    from orchestrator.loading import load_tasks
    from orchestrator.settings import Settings

    settings = Settings.load()
    graph = load_target(target, parameters, tasks, settings).graph
    load_tasks((*settings.tasks, *tasks))
    return graph


def _what(target: str, parameters: tuple[str, ...], tasks: tuple[str, ...]) -> Graph | str:
    """Return the graph of a target, or the name of a schedule: what has the form of a name and is no file."""
    from pathlib import Path

    if re.fullmatch(r"[A-Za-z0-9_-]+", target) and target != "-" and not Path(target).exists():
        return target
    return _load(target, parameters, tasks)


def _given(terms: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in terms.items() if value is not None}


def _done(name: str, tenant: str, what: str, changed: bool, as_json: bool) -> None:
    if as_json:
        print_json({"schedule": name, "tenant": tenant, what: True, "changed": changed})
    else:
        click.echo(
            f"schedule {name} {'is' if changed else 'was already'} {what}"
            if what != "resumed" or changed
            else f"schedule {name} was not paused"
        )


def _when(terms: Terms) -> str:
    return f"every {terms.every_s} s" if terms.cron is None else f"{terms.cron} ({terms.timezone})"


def _next(found: ScheduleView) -> str:
    return "paused" if found.paused else _local(found.next_at, found.terms)


def _local(moment: float | None, terms: Terms) -> str:
    return "-" if moment is None else terms.timetable.local(int(moment) * 1000).isoformat()


def _priority(terms: Terms) -> str | None:
    from tenancy.priorities import Priority

    return None if terms.priority is None else Priority.parse(terms.priority).name


def _row(tick: TickView, terms: Terms) -> tuple[str, str, str, str]:
    return _local(tick.at, terms), tick.outcome or tick.status or tick.state, tick.run_id or "-", tick.reason or "-"


def _value(value: Any) -> str:
    return "-" if value is None else str(value)


def _as_json(found: ScheduleView) -> dict[str, Any]:
    own = {name: getattr(found, name) for name in ("tenant", "name", "graph", "digest", "paused", "version", "created_at", "next_at")}
    return {**own, **found.terms.said()}
