"""The command group: an error of ours is one sentence and an exit code, never a traceback."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.exits import Exit, of_error
from orchestrator.cli.output import print_json, say
from tenancy.errors import BudgetRefused, GraphInvalid, HeadgateError

_SERVICES = ("kombu", "redis", "sqlalchemy")
"""Libraries whose errors, where they come this far, mean that what they talk to is away."""


_AS_JSON = "headgate.as_json"
"""Where a context keeps whether programs read its output."""

PROBLEMS_SHOWN = 20


class Headgate(click.Group):
    """The group of all commands. With --json an error is an object on stdout as well: its sentence, and the problems of a graph."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadgateError as error:
            problems = error.problems if isinstance(error, GraphInvalid) else ()
            raise _ended(ctx, shown(error), of_error(error), problems) from error
        except click.ClickException as error:
            if ctx.meta[_AS_JSON]:
                print_json({"error": error.format_message(), "problems": []})
            raise
        except (click.exceptions.Exit, click.Abort):
            raise
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read the output has seen enough; click ends quietly
            raise _ended(ctx, _of_system(error), Exit.UNAVAILABLE) from error
        except Exception as error:
            library = type(error).__module__.partition(".")[0]
            if library not in _SERVICES:
                raise
            raise _ended(ctx, f"a service cannot be used ({library}): {_first_line(error)}", Exit.UNAVAILABLE) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            nearest = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise click.UsageError(f"there is no command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


def _ended(ctx: click.Context, sentence: str, code: Exit, problems: Sequence[str] = ()) -> click.exceptions.Exit:
    """Tell the error, and return what ends the command."""
    say(f"headgate: {sentence}")
    if ctx.meta[_AS_JSON]:
        print_json({"error": sentence.partition(":\n")[0] if problems else sentence, "problems": list(problems)})
    return click.exceptions.Exit(code)


def _of_system(error: OSError) -> str:
    place = "" if error.filename is None else f"{error.filename}: "
    hint = " (the home is set by HEADGATE_HOME)" if _in_home(error.filename) else ""
    return f"{place}{error.strerror or error}{hint}"


def _in_home(name: object) -> bool:
    from orchestrator.settings import Settings

    try:
        home = Settings.load().home.absolute()
    except HeadgateError:
        return False
    return isinstance(name, (str, Path)) and Path(name).absolute().is_relative_to(home)


def _first_line(error: Exception) -> str:
    """Return what the library's own cause says: SQLAlchemy adds the statement and a link."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _in_units(text: str) -> str:
    """Return `text` with its amounts in units, as people write them for --budget."""
    from cost.money import format_units

    return re.sub(r"\b(?:(\d+) of )?(\d+) micros\b", lambda m: " of ".join(format_units(int(each)) for each in m.groups() if each), text)


def shown(error: HeadgateError) -> str:
    """Return what a person is told of an error of ours."""
    if isinstance(error, BudgetRefused):
        return _in_units(str(error))
    if not isinstance(error, GraphInvalid) or len(error.problems) <= PROBLEMS_SHOWN:
        return str(error)
    first = str(error).splitlines()[: PROBLEMS_SHOWN + 1]
    return "\n".join([*first, f"  ... and {len(error.problems) - PROBLEMS_SHOWN} more"])
