"""The command group: an error of ours is one sentence and an exit code, never a traceback."""

from __future__ import annotations

import difflib
from typing import Any

import click

from orchestrator.cli.exits import Exit, of_error
from orchestrator.cli.output import say
from tenancy.errors import GraphInvalid, HeadgateError

_SERVICES = ("kombu", "redis", "sqlalchemy")
"""Libraries whose errors, where they come this far, mean that what they talk to is away."""


PROBLEMS_SHOWN = 20


class Headgate(click.Group):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadgateError as error:
            say(f"headgate: {_shown(error)}")
            raise click.exceptions.Exit(of_error(error)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            library = type(error).__module__.partition(".")[0]
            if library not in _SERVICES:
                raise
            say(f"headgate: a service cannot be reached ({library}): {error}")
            raise click.exceptions.Exit(Exit.UNAVAILABLE) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            nearest = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise click.UsageError(f"there is no command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


def _shown(error: HeadgateError) -> str:
    if not isinstance(error, GraphInvalid) or len(error.problems) <= PROBLEMS_SHOWN:
        return str(error)
    first = str(error).splitlines()[: PROBLEMS_SHOWN + 1]
    return "\n".join([*first, f"  ... and {len(error.problems) - PROBLEMS_SHOWN} more"])
