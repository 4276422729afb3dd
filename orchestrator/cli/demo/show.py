"""The show: a stack of its own, three tenants' projects, then the nights; nothing of it is left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from orchestrator.embedded import Stack
from orchestrator.embedded.stack import child_environment
from orchestrator.embedded.tether import Tether
from orchestrator.settings import Settings
from tenancy.errors import Unavailable

from . import indexing
from .board import Board, PlainBoard, board_for
from .nights import NIGHTS
from .scene import Scene

WORKERS, SLOTS = 3, 2

INTERRUPTED = 130

_ENDING = (signal.SIGTERM, signal.SIGHUP)

_SEE = re.compile(r" \(see [^()]*\)$")
"""Where a sentence names a log, which goes with a temporary home."""


def demo(settings: Settings, echo: Callable[[str], None], figures: dict[str, Any] | None = None) -> int:
    """Index real text for three tenants, then show the nights; return 0 if everything ended well, 1 if not, 130 when interrupted.

    Runs on a stack of its own, in `settings.home` where that was set and else in a temporary directory that is removed again; a
    Redis, database or tasks of the settings are left alone. On a terminal a live board is drawn there, elsewhere `echo` is given
    plain lines. Where `figures` is given it takes what is shown as data, and `echo` gets the lines even on a terminal.
    To be called in a process that has not loaded the app yet. Takes half a minute on two cores.
    Raises Unavailable when the stack cannot be started.
    """
    began = time.monotonic()
    board = board_for(echo) if figures is None else PlainBoard(echo)
    figures = {} if figures is None else figures
    try:
        with _ended_by_signals(), _home(settings) as home:
            own = settings.model_copy(update={"home": home, "redis_url": None, "database_url": None, "tasks": ()})
            kept = "home" in settings.model_fields_set
            well = _perform(own, board, figures, _as_it_is if kept else _without_log)
    except KeyboardInterrupt:
        figures.update(succeeded=False, interrupted=True, seconds=round(time.monotonic() - began, 3))
        board.say("interrupted; everything is stopped")
        return INTERRUPTED
    figures.update(succeeded=well, interrupted=False, seconds=round(time.monotonic() - began, 3))
    board.say(f"\nall of this took {time.monotonic() - began:.0f} s; nothing of it still runs")
    return 0 if well else 1


def _as_it_is(sentence: str) -> str:
    return sentence


def _without_log(sentence: str) -> str:
    return _SEE.sub("", sentence)


def _perform(settings: Settings, board: Board, figures: dict[str, Any], worded: Callable[[str], str]) -> bool:
    """Play everything; `worded` returns a sentence of the stack as the audience is told it."""
    board.say(f"starting Redis, a recorder, beat and {WORKERS} workers of {SLOTS} processes")
    began = time.monotonic()
    stack = Stack(settings, WORKERS, SLOTS, console=False, report=lambda sentence: board.step(worded(sentence)))
    with _environment(settings), _started(stack, worded):
        figures["ready_s"] = round(time.monotonic() - began, 3)
        board.say(f"ready after {time.monotonic() - began:.1f} s")
        with Scene.open(stack, board, WORKERS, SLOTS, figures) as scene:
            well = indexing.show(scene)
            for night in NIGHTS:
                board.title(f"A bad night: {night.title}")
                well = night.show(scene) and well
    return well


@contextmanager
def _started(stack: Stack, worded: Callable[[str], str]) -> Iterator[None]:
    try:
        stack.start()
    except Unavailable as error:
        raise Unavailable(worded(str(error))) from error
    try:
        yield
    finally:
        stack.stop()


@contextmanager
def _home(settings: Settings) -> Iterator[Path]:
    """The home that was asked for, or a temporary one that goes even when this process is killed."""
    if "home" in settings.model_fields_set:
        yield settings.home.absolute()
        return
    home = Path(tempfile.mkdtemp(prefix="headgate-demo-"))
    tether = Tether()
    tether.adopt(home)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
        tether.close()


@contextmanager
def _environment(settings: Settings) -> Iterator[None]:
    """Have this process load these settings and no others: the app reads them when it is imported.

    Its children have their temporary files in the home: a killed Celery worker leaves the directory of its shared memory behind.
    """
    before = dict(os.environ)
    settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=settings.home, ignore_cleanup_errors=True) as temporary:
        _replace(child_environment(before, {**settings.environment(), "TMPDIR": temporary}))
        Settings.forget()
        try:
            yield
        finally:
            _replace(before)
            Settings.forget()


def _replace(environment: dict[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the show in good order, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)  # once: the second must not break off the cleaning up
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
