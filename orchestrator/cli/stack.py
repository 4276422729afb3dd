"""Verbs about the stack: up, sweep, demo."""

from __future__ import annotations

import sys
from dataclasses import asdict
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import as_json, print_json, say
from orchestrator.cli.words import TASKS

if TYPE_CHECKING:
    from orchestrator.settings import Settings


@click.command()
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=2, show_default=True, help="Slots of each worker.")
@click.option("--tasks", type=TASKS, default=(), metavar="MODULE", help="Modules of this directory that define tasks, separated by commas.")
@click.option("--reload", is_flag=True, help="Start the workers anew when a file of those modules changes.")
@as_json
def up(workers: int, concurrency: int, tasks: tuple[str, ...], reload: bool, as_json: bool) -> None:
    """Start Redis, recorder, workers, beat and console, until Ctrl-C.

    Everything lives under HEADGATE_HOME. With --json, where everything is goes to stdout once it is ready.
    """
    from orchestrator.embedded import run_up
    from orchestrator.settings import Settings

    settings = Settings.load()
    for module in tasks:
        if PathFinder.find_spec(module.partition(".")[0], [str(Path.cwd()), *sys.path]) is None:
            raise click.UsageError(f"there is no module {module!r} in {Path.cwd()} or on the path")
    say(f"starting Redis, recorder, {workers} worker{'s' if workers > 1 else ''}, beat and console in {settings.home}")
    echo = _Announcer(settings) if as_json else click.echo
    run_up(settings, workers, tasks, reload, echo, progress=say, concurrency=concurrency)


class _Announcer:
    """Tells people on stderr, and programs on stdout once, when the stack has said where it is."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.done = False

    def __call__(self, line: str) -> None:
        if not self.done and (stack := self.settings.stack()) is not None:
            self.done = True
            print_json(stack)
        say(line)


@click.command()
@as_json
def sweep(as_json: bool) -> None:
    """Repair now what a crash left half done; beat does so every few seconds anyhow."""
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    running(Settings.load())
    from orchestrator.app import app

    repairs = app.headgate_sweeper.sweep()
    if as_json:
        print_json(asdict(repairs))
    else:
        click.echo(str(repairs))


@click.command()
@as_json
def demo(as_json: bool) -> None:
    """Run the main job on a stack of its own, and what happens to it on a bad night.

    With --json the figures go to stdout as one object once it is over, and the rest to stderr.
    """
    from orchestrator.settings import Settings

    play = import_module("orchestrator.cli.demo").demo
    if not as_json:
        sys.exit(play(Settings.load(), click.echo))
    figures: dict[str, object] = {}
    code = play(Settings.load(), say, figures)
    print_json(figures)
    sys.exit(code)
