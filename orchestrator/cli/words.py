"""The kinds of words that arguments are: amounts, modules, runs, qualities."""

from __future__ import annotations

import re

import click
from click.shell_completion import CompletionItem

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

OFFERED = 100
"""Runs that a shell is offered."""


class Budget(click.ParamType[str]):
    """An amount in units, kept as text: "0.06"."""

    name = "units"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from cost.money import parse_units

        try:
            parse_units(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


class Modules(click.ParamType[tuple[str, ...]]):
    """Names of modules, separated by commas."""

    name = "modules"

    def convert(self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if not isinstance(value, str):
            return value
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        for name in names:
            if not _MODULE.fullmatch(name) or name.endswith(".py"):
                hint = f"; name the module, {name.removesuffix('.py').replace('/', '.')}" if name.endswith(".py") else ""
                self.fail(f"{name!r} is not the name of a module{hint}", param, ctx)
        return names


class Run(click.ParamType[str]):
    """A run's id, the beginning of one, or `latest`."""

    name = "run"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = value.lower()
        if text != "latest" and not re.fullmatch(r"[0-9a-z]{1,26}", text):
            self.fail(f"{value!r} is no id of a run: give its 26 letters and digits, the first of them, or latest", param, ctx)
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the newest runs; nothing where there is no record: a shell that completes must not be told of it."""
        del ctx, param
        from orchestrator.cli.service import recorded
        from orchestrator.settings import Settings
        from orchestrator.store.read import list_runs
        from tenancy.errors import HeadgateError

        try:
            found = list_runs(recorded(Settings.load()).engine, limit=OFFERED)
        except HeadgateError:
            return []
        runs = [CompletionItem(run.run_id, help=f"{run.graph} {run.outcome or run.status}") for run in found]
        return [each for each in (CompletionItem("latest"), *runs) if str(each.value).startswith(incomplete.lower())]


class Traceparent(click.ParamType[str]):
    """A span as W3C writes it; a shell's variable that is empty is none."""

    name = "traceparent"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from orchestrator.trace.identity import parse_traceparent

        try:
            parse_traceparent(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


BUDGET, TASKS, RUN, TRACEPARENT = Budget(), Modules(), Run(), Traceparent()

quality = click.option(
    "--quality",
    type=click.Choice(["floor", "full"]),
    default="floor",
    show_default=True,
    help="floor: begins where what is required fits, planned down to the rest; full: only where everything fits.",
)
