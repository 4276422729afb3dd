"""Routing: which attempt a record of `logging`, or a text that is printed, belongs to.

The context tells (contextvars), so nodes side by side in one process, as threads or coroutines, are never mixed. A thread that a task
starts has no context of its own: in a process that runs one node at a time it belongs to that node; in any other, start it with
`contextvars.copy_context().run`.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Protocol

from billiard.process import current_process

REDIRECTED: Final = "celery.redirected"
"""The logger by which Celery's worker prints: what comes from it was heard as it was printed."""
OURS: Final = "headgate-"
"""Begins the names of our own threads, which speak for no node."""


class Hearer(Protocol):
    """Whoever is told what is said."""

    def say(self, level: str, logger: str, text: str) -> None:
        """Hear a record of `logging`."""

    def write(self, stream: str, text: str) -> None:
        """Hear what is printed to `stdout` or `stderr`, as it comes: lines in pieces, too."""


_current: ContextVar[Hearer | None] = ContextVar("headgate_log", default=None)
_active: list[Hearer] = []


@contextmanager
def hearing(hearer: Hearer) -> Iterator[None]:
    """Let `hearer` be told what is said inside the block."""
    _listen()
    token = _current.set(hearer)
    _active.append(hearer)
    try:
        yield
    finally:
        _active.remove(hearer)
        _current.reset(token)


def current() -> Hearer | None:
    """Return whoever hears what is said here, None where nobody does."""
    hearer = _current.get()
    if hearer is not None or len(_active) != 1:
        return hearer
    thread = threading.current_thread()
    alone = current_process().name != "MainProcess" and not thread.name.startswith(OURS)
    return _active[0] if alone and thread is not threading.main_thread() else None


class _Handler(logging.Handler):
    """Tells records to whoever hears them."""

    def emit(self, record: logging.LogRecord) -> None:
        hearer = current()
        if hearer is None or record.name == REDIRECTED:
            return
        try:
            hearer.say(record.levelname, record.name, _text_of(record))
        except Exception:  # noqa: BLE001 - as every handler: a record that cannot be formatted is told to stderr, and stops nothing
            self.handleError(record)


def _text_of(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and not record.exc_text:
        record.exc_text = _FORMATTER.formatException(record.exc_info)
    return "\n".join(filter(None, (text, record.exc_text, record.stack_info)))


_FORMATTER: Final = logging.Formatter()


class _Stream:
    """A stream of this process, with whoever hears what is printed there told as well."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: Any) -> Any:
        hearer = current()
        if hearer is not None and isinstance(text, str):
            hearer.write(self._name, text)
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


_handler: Final = _Handler()


def _listen() -> None:
    """Be told what is said in this process, by whatever took our place since the last time too: a worker sets up its streams itself."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and type(stream) is not _Stream:
            setattr(sys, name, _Stream(stream, name))
    for logger in _LOGGERS:
        if _handler not in logger.handlers and not (logger is not _LOGGERS[0] and logger.propagate):
            logger.addHandler(_handler)


_LOGGERS: Final = (logging.getLogger(), logging.getLogger("celery.task"))
"""Celery's tasks have a logger of their own, which a worker lets tell nothing to the root."""
