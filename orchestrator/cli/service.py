"""The stack that a command works with: the one that runs, or one of its own for the duration."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from orchestrator.settings import Settings
from tenancy.errors import Unavailable

if TYPE_CHECKING:
    from orchestrator.client import Client

STARTING_S = 60.0
"""How long a command waits for a stack that somebody else is just starting."""

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def runs(settings: Settings) -> bool:
    """Return whether there is a stack to work with, as far as can be told without asking it."""
    return settings.redis_url is not None or settings.stack() is not None


def recorded(settings: Settings) -> Client:
    """Return a client that can read the record, whether or not a stack runs. Raises Unavailable when there is no record yet."""
    from orchestrator.client import Client

    url = make_url(settings.resolved_database_url())
    if url.get_backend_name() == "sqlite" and not (settings.home / "headgate.db").exists() and settings.database_url is None:
        raise Unavailable(f"there is no record in {settings.home} yet: `headgate up` makes one, or set HEADGATE_HOME")
    return Client(settings)


def running(settings: Settings) -> Client:
    """Return a client of the stack that runs. Raises Unavailable, saying how to start one."""
    from orchestrator.client import Client

    settings.resolved_redis_url()
    return Client(settings)


@contextmanager
def service(settings: Settings, modules: Sequence[str], say: Callable[[str], None]) -> Iterator[bool]:
    """Have a stack run for as long as the context lasts; gives whether it is one of this command's own.

    While an own stack runs, SIGTERM and SIGHUP raise KeyboardInterrupt; while it stops, a signal makes it hurry.
    """
    _await_start(settings)
    if runs(settings):
        yield False
        return
    from orchestrator.embedded import Stack

    stack = Stack(settings, workers=1, concurrency=max(2, os.cpu_count() or 2), tasks=modules, console=False, report=say)

    def hurry(_number: int, _frame: FrameType | None) -> None:
        stack.hurry.set()

    say(f"no stack runs in {settings.home}: starting one for this command")
    before = {number: signal.signal(number, signal.default_int_handler) for number in _ENDING}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    try:
        stack.start()
        try:
            yield True
        finally:
            for number in before:
                signal.signal(number, hurry)
            stack.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _await_start(settings: Settings) -> None:
    """Wait while another process is starting a stack: it holds the lock and has not said yet where it is."""
    until = time.monotonic() + STARTING_S
    while _is_locked(settings) and settings.stack() is None and time.monotonic() < until:
        time.sleep(0.05)


def _is_locked(settings: Settings) -> bool:
    try:
        with settings.lock_file.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
