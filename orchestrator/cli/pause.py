"""Verbs that hold work back and let it go on: pause, resume."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import as_json, at, print_json, print_table
from orchestrator.cli.tenant import audited
from orchestrator.cli.words import RUN

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestrator.store.read import PauseView

KINDS = ("platform", "tenant", "run")

_KIND = click.argument("kind", type=click.Choice(KINDS), required=False, metavar="[platform|tenant|run]")
_NAME = click.argument("name", required=False, metavar="[ID]")
_ALL = click.option("--all", "everything", is_flag=True, help="The platform.")


@click.command()
@_KIND
@_NAME
@_ALL
@audited
@as_json
def pause(kind: str | None, name: str | None, everything: bool, reason: str, by: str | None, as_json: bool) -> None:
    """Begin nothing of the platform, a tenant or a run until it is resumed; without arguments, list what is paused.

    Holds at once and through restarts of everything. What runs goes on, and new runs are still taken. A run is named by its id, the
    beginning of one, or `latest`.
    """
    kind = _kind(kind, everything=everything)
    if kind is None:
        _list(as_json)
        return
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    _check(kind, name)
    client = running(Settings.load())
    scope = _scope(client.engine, kind, name)
    changed = client.pause(scope, reason=reason, by=by)
    if as_json:
        print_json({"scope": scope, "paused": True, "changed": changed})
    else:
        click.echo(f"{shown(scope)} {'is' if changed else 'was already'} paused")


@click.command()
@_KIND
@_NAME
@_ALL
@audited
@as_json
def resume(kind: str | None, name: str | None, everything: bool, reason: str, by: str | None, as_json: bool) -> None:
    """End a pause: what waited goes on, in its order."""
    kind = _kind(kind, everything=everything)
    if kind is None:
        raise click.UsageError("say what to resume: platform, tenant ID or run RUN; `headgate pause` lists what is paused")
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    _check(kind, name)
    client = running(Settings.load())
    scope = _scope(client.engine, kind, name)
    changed = client.resume(scope, reason=reason, by=by)
    if as_json:
        print_json({"scope": scope, "paused": False, "changed": changed})
    else:
        click.echo(f"{shown(scope)} {'goes on' if changed else 'was not paused'}")


def since(pause: PauseView) -> str:
    """Return since when, by whom and why something is paused, for a person."""
    return f"since {at(pause.at)} by {pause.by}" + (f": {pause.reason}" if pause.reason else "")


def shown(scope: str) -> str:
    """Return a scope as a person says it."""
    kind, _, name = scope.partition(":")
    whole = {"platform": "the platform", "agent": "the cost agent"}
    return whole.get(kind) or f"{kind} {name.partition('.')[0]}"


def _list(as_json: bool) -> None:
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings
    from orchestrator.store.read import pauses

    found = pauses(recorded(Settings.load()).engine)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    if not found:
        click.echo("nothing is paused")
        return
    print_table(("paused", "since", "by", "reason"), [(shown(each.scope), at(each.at), each.by, each.reason or "-") for each in found])


def _kind(kind: str | None, *, everything: bool) -> str | None:
    if everything and kind not in (None, "platform"):
        raise click.UsageError(f"--all is the platform; leave out {kind!r}")
    return "platform" if everything else kind


def _check(kind: str, name: str | None) -> None:
    if kind == "platform" and name is not None:
        raise click.UsageError(f"the platform is paused and resumed as a whole; {name!r} is too much")
    if kind != "platform" and not name:
        raise click.UsageError(f"which {kind}? write its id after `{kind}`")


def _scope(engine: Engine, kind: str, name: str | None) -> str:
    from orchestrator.cli.reference import find_run
    from orchestrator.store.read import get_run

    if kind == "platform" or name is None:
        return "platform"
    if kind == "tenant":
        return f"tenant:{name}"
    found = get_run(engine, find_run(engine, RUN.convert(name, None, None)))
    return f"run:{found.run_id}.{found.generation}"
