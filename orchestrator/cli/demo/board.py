"""The board: what the audience sees, alive on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

Row = Sequence[str]
"""The cells of a line."""
Draw = Callable[[Row, Sequence[Row]], None]
"""Takes headings and rows."""

PLAIN_WIDTH = 120

_COLOURS = {"…": "yellow", "✓": "green", "✗": "red", "!": "bold red"}
"""The last character of a cell says how to colour it."""


class Board(Protocol):
    """Where the demo writes. `title` and `say` are seen everywhere, `step` only where nothing moves, `show` as the place can."""

    def title(self, text: str) -> None:
        """Begin a part."""

    def say(self, text: str, hang: str = "") -> None:
        """Print a text, folded where it is wider than the place; lines after the first begin with `hang`."""

    def step(self, text: str) -> None:
        """Print what a table that moves shows anyway."""

    def live(self) -> AbstractContextManager[Draw]:
        """Return a context in which tables shown take each other's place; the last one stays."""


def board_for(echo: Callable[[str], None]) -> Board:
    """Return a live board if standard output is a terminal, else one of lines for `echo`."""
    return LiveBoard(Console(highlight=False)) if sys.stdout.isatty() else PlainBoard(echo)


class PlainBoard:
    """Lines, each of them final; of tables that move, the last."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo

    def title(self, text: str) -> None:
        self._echo(f"\n== {text}")

    def say(self, text: str, hang: str = "") -> None:
        self._echo(_folded(text, PLAIN_WIDTH, hang))

    def step(self, text: str) -> None:
        self._echo(text)

    @contextmanager
    def live(self) -> Iterator[Draw]:
        last: list[Sequence[Row]] = []

        def draw(headings: Row, rows: Sequence[Row]) -> None:
            last[:] = [(headings, *rows)]

        yield draw
        for lines in last:
            self._print(lines)

    def _print(self, lines: Sequence[Row]) -> None:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for row in lines:
            self._echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class LiveBoard:
    """Tables that move, in colour."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def title(self, text: str) -> None:
        self._console.print()
        self._console.rule(Text(text, "bold"), align="left", style="dim")

    def say(self, text: str, hang: str = "") -> None:
        self._console.print(Text(_folded(text, self._console.width, hang)))

    def step(self, text: str) -> None:
        del text  # the table that is live shows it

    @contextmanager
    def live(self) -> Iterator[Draw]:
        with Live(console=self._console, auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda headings, rows: live.update(_rendered(headings, rows), refresh=True)


def _folded(text: str, width: int, hang: str) -> str:
    lines = [
        textwrap.fill(line, width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")
    ]
    return "\n".join(lines)


def _rendered(headings: Row, rows: Sequence[Row]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(Text(cell, _COLOURS.get(cell[-1:], "")) for cell in row))
    return table
