"""What commands print: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""The option that every command has."""


def say(text: str) -> None:
    """Tell a person what goes on."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """Print data for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings, as wide as they are: what reads a pipe must get all of it."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one name and value a line, without those that are None."""
    width = max(map(len, fields))
    for name, value in fields.items():
        if value is not None:
            click.echo(f"{name.ljust(width)}  {value}")


def seconds(value: float | None) -> str:
    """Return a duration for a person; "-" for none."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.1f} s" if value >= 0.1 else f"{value * 1000:.0f} ms"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def between(since: float | None, until: float | None) -> float | None:
    """Return the seconds from one time to another, None where one is missing."""
    return None if since is None or until is None else max(0.0, until - since)


def at(epoch_s: float | None) -> str:
    """Return a time for a person, local; "-" for none."""
    return "-" if epoch_s is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_s))


def money(micros: int | None) -> str | None:
    """Return an amount in units, None for none."""
    from cost.money import format_units

    return None if micros is None else format_units(micros)


def cause(error: Any) -> str | None:
    """Return what a node's recorded error says, in one line."""
    if not error:
        return None
    text = f"{error.get('type', 'Error')}: {error.get('message', '')}" if isinstance(error, Mapping) else str(error)
    return text.splitlines()[0] if text.strip() else None
