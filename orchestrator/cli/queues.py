"""Verbs about the queues: who waits, who runs, and dead letters."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import click

from orchestrator.cli.exits import Exit
from orchestrator.cli.output import as_json, at, print_json, print_table, say, seconds
from orchestrator.cli.tenant import audited

if TYPE_CHECKING:
    from tenancy.link import Link
    from tenancy.transport.letters import Letter
    from tenancy.transport.view import PoolLoad, TenantLoad, View

ROWS_SHOWN = 50
"""Tenants in a table; --json has all of them."""

PERIOD_S = 1.0
"""How often --watch looks; less often where looking takes long."""

_POOLS = ("pool", "workers", "slots", "running", "in line", "load", "capacity", "runs", "parked", "for")
_TENANTS = ("tenant", "pool", "in line", "by priority", "oldest", "running", "parked", "delayed", "weight", "share", "due", "")

_TAGS = click.argument("tags", nargs=-1, metavar="[TAG]...")
_ALL = click.option("--all", "all_", is_flag=True, help="All of them.")


@click.group(invoke_without_command=True)
@click.option("--tenant", help="Only this tenant's.")
@click.option("--pool", help="Only of this pool.")
@click.option("--watch", is_flag=True, help="Look again every second, on a terminal, until Ctrl-C.")
@as_json
@click.pass_context
def queues(context: click.Context, tenant: str | None, pool: str | None, watch: bool, as_json: bool) -> None:
    """Show what waits and runs now, by tenant and pool.

    share is the part of all worker time that a tenant received in the last minutes, due the part that its weight gives it among those who
    wanted some.
    """
    if context.invoked_subcommand is not None:
        return
    from tenancy.transport.view import look

    if watch and (as_json or not sys.stdout.isatty()):
        raise click.UsageError("--watch draws on a terminal; without one, call `headgate queues --json` again")
    link, backlog_per_slot = _connect()

    def see() -> View:
        return look(link, backlog_per_slot=backlog_per_slot, tenant=tenant, pool=pool)

    if watch:
        sys.exit(_watch(see))
    found = see()
    if as_json:
        print_json(asdict(found))
        return
    for line in _remarks(found):
        click.echo(line)
    print_table(_POOLS, [_pool_row(each) for each in found.pools])
    click.echo()
    print_table(_TENANTS, _rows(found))


@queues.command()
@as_json
def letters(as_json: bool) -> None:
    """List the dead letters: messages that three workers died with, and that are not tried again by themselves."""
    from tenancy.transport.letters import letters as read

    found = read(_connect()[0])
    if as_json:
        print_json([asdict(each) for each in found])
        return
    if not found:
        click.echo("there are no dead letters")
        return
    print_table(("letter", "tenant", "task", "age", "reason", "history"), [_letter_row(each) for each in found])


@queues.command()
@_TAGS
@_ALL
@audited
@as_json
def requeue(tags: tuple[str, ...], all_: bool, reason: str, by: str | None, as_json: bool) -> None:
    """Put dead letters back in line, as if they had just come."""
    _act("requeue", tags, all_, reason, by, as_json)


@queues.command()
@_TAGS
@_ALL
@audited
@as_json
def discard(tags: tuple[str, ...], all_: bool, reason: str, by: str | None, as_json: bool) -> None:
    """Forget dead letters for good."""
    _act("discard", tags, all_, reason, by, as_json)


def _act(what: Literal["requeue", "discard"], tags: tuple[str, ...], all_: bool, reason: str, by: str | None, as_json: bool) -> None:
    from orchestrator.letters import act

    if bool(tags) == all_:
        raise click.UsageError("name the letters, or say --all; `headgate queues letters` lists them")
    done = act(_connect()[0], what, None if all_ else tags, by=by, reason=reason)
    for letter in done.left:
        say(f"{letter.tag} stays: its node has failed with it, in the run {letter.run.partition('.')[0]}; submit that graph again")
    if as_json:
        print_json({f"{what}{'d' if what == 'requeue' else 'ed'}": done.moved, "left": [letter.tag for letter in done.left]})
    else:
        click.echo(f"{done.moved} {'is' if done.moved == 1 else 'are'} {'back in line' if what == 'requeue' else 'forgotten'}")


def _connect() -> tuple[Link, int]:
    from orchestrator.settings import Settings
    from tenancy.link import Link

    settings = Settings.load()
    return Link(settings.resolved_client_url()), settings.backlog_per_slot


def _watch(see: Callable[[], View]) -> int:
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
        drawn = Table(box=None, pad_edge=False)
        for heading in headings:
            drawn.add_column(heading, no_wrap=True)
        for row in rows:
            drawn.add_row(*map(Text, row))
        return drawn

    def draw(view: View) -> Any:
        return Group(*map(Text, _remarks(view)), table(_POOLS, [_pool_row(each) for each in view.pools]), table(_TENANTS, _rows(view)))

    try:
        with Live(auto_refresh=False, screen=False) as live:
            while True:
                began = time.monotonic()
                live.update(draw(see()), refresh=True)
                time.sleep(max(PERIOD_S, 4 * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return Exit.DETACHED


def _remarks(view: View) -> list[str]:
    found = []
    if view.paused:
        found.append("the platform is paused: nothing begins; `headgate resume platform` ends it")
    if view.letters:
        found.append(f"{view.letters} dead letter{'s' if view.letters > 1 else ''}: `headgate queues letters`")
    if view.waiting:
        found.append(f"runs of {view.waiting} tenant{'s' if view.waiting > 1 else ''} wait to be admitted: `headgate runs --status held`")
    return found


def _pool_row(pool: PoolLoad) -> tuple[str, ...]:
    counts = (pool.workers, pool.slots, pool.running, pool.queued, pool.load, pool.capacity)
    state = "wait" if pool.state == "parked" else "start"
    return (pool.pool, *map(str, counts), state, f"{pool.parked}x", seconds(pool.parked_s) if pool.parked else "-")


def _rows(view: View) -> list[tuple[str, ...]]:
    rows = [row for tenant in view.tenants[:ROWS_SHOWN] for row in _tenant_rows(tenant)]
    left = len(view.tenants) - ROWS_SHOWN
    return [*rows, (f"... and {left} more", *[""] * (len(_TENANTS) - 1))] if left > 0 else rows


def _tenant_rows(tenant: TenantLoad) -> list[tuple[str, ...]]:
    remark = " ".join([*(["paused"] if tenant.paused else []), *([tenant.status] if tenant.status != "active" else [])])
    share = "-" if tenant.share is None else f"{tenant.share:.1%}"
    of_tenant = (str(tenant.parked), str(tenant.delayed), str(tenant.weight), share, f"{tenant.due:.1%}", remark)
    rows: list[tuple[str, ...]] = []
    for line in tenant.lines:
        levels = ", ".join(f"{name} {count}" for name, count in line.queued.items()) or "-"
        rows.append((line.pool, str(sum(line.queued.values())), levels, seconds(line.oldest_s), str(line.running)))
    first, *more = rows or [("-", "0", "-", "-", "0")]
    return [(tenant.tenant, *first, *of_tenant), *(("", *row, *[""] * len(of_tenant)) for row in more)]


def _letter_row(letter: Letter) -> tuple[str, ...]:
    deaths = ", ".join(f"{death.worker} {at(death.at)}" for death in letter.deaths)
    history = deaths or (f"run {letter.run.partition('.')[0]}" if letter.run else "-")
    return (letter.tag, letter.tenant, letter.task or "-", seconds(letter.age_s), letter.reason, history)
