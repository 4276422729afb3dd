"""How the platform's own log is written: lines for people, or JSON; whoever logs uses Python's `logging`.

structlog formats what `logging` and Celery emit. It is not configured for the whole process, so tasks that use it have it as they like.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterable
from typing import Any, Final, Literal

import structlog
from celery._state import get_current_task
from celery.app.defaults import DEFAULT_PROCESS_LOG_FMT, DEFAULT_TASK_LOG_FMT
from celery.signals import after_setup_logger, after_setup_task_logger
from structlog.typing import EventDict, Processor

from orchestrator.cancellation import node_of
from orchestrator.log_context import FIELDS, known, of_process, process

Style = Literal["console", "json"]

_TIME: Final = "%Y-%m-%d %H:%M:%S"
_BARE: Final = re.compile(r"[\w.:@/+-]+").fullmatch
"""Of values that structlog writes as they are."""
_ABSENT: Final = object()
_STOCK: Final = (DEFAULT_PROCESS_LOG_FMT, DEFAULT_TASK_LOG_FMT)


def formatter(style: Style, *, colours: bool = False) -> logging.Formatter:
    """Return what makes a line of a record.

    console: time, level, message, who says it, what it is about, for people. json: one object a line, with the keys `timestamp` (ISO
    8601, UTC), `level`, `logger`, `event`, `pid`, and where they are known `service`, `worker`, `tenant`, `run`, `generation`, `node`,
    `attempt`, `task`, `task_id`, `exception`.
    """
    as_json = style == "json"
    made: list[Processor] = [_what_of_it, *([_who] if as_json else []), structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        made += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str, ensure_ascii=False)]
    else:
        plain = structlog.dev.plain_traceback  # with rich at hand structlog would print the values of variables
        made.append(structlog.dev.ConsoleRenderer(pad_event_to=0, colors=colours, exception_formatter=plain, sort_keys=False))
    kind = structlog.stdlib.ProcessorFormatter if as_json or colours else _Lines
    return kind(
        processors=made,
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=FIELDS),
            structlog.processors.TimeStamper("iso" if as_json else _TIME, utc=as_json),
        ],
    )


class _Lines(structlog.stdlib.ProcessorFormatter):
    """As its base, and what needs neither quotes nor a traceback is put together here, in a quarter of the time.

    Celery writes two lines a task.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return _plain(record) or super().format(record)


def _plain(record: logging.LogRecord) -> str | None:
    if record.exc_info or record.exc_text or record.stack_info or isinstance(record.msg, dict):
        return None
    said = {name: value for name in FIELDS if (value := getattr(record, name, _ABSENT)) is not _ABSENT}
    about = {**said, **_subject(record), **said}
    texts = [f" {name}={value}" for name, value in about.items()]
    if not all(type(value) is int or (type(value) is str and _BARE(value)) for value in about.values()):
        return None
    return f"{time.strftime(_TIME)} [{record.levelname.lower():9}] {record.getMessage()} [{record.name}]{''.join(texts)}"


def _what_of_it(_logger: Any, _name: str, event: EventDict) -> EventDict:
    """Add what the line is about: what whoever logs knows, the Celery task that runs here, and what Celery says of a task."""
    return {**event, **_subject(event.get("_record")), **{name: event[name] for name in FIELDS if name in event}}


def _subject(record: logging.LogRecord | None) -> dict[str, object]:
    said = getattr(record, "data", None)
    task_id, task = (said.get("id"), said.get("name")) if isinstance(said, dict) else (None, None)
    if task_id is None and (running := get_current_task()) is not None and running.request is not None:
        task_id, task = running.request.id, running.name
    about: dict[str, object] = {}
    if task_id and (node := node_of(str(task_id))) is not None:
        about = dict(zip(("run", "generation", "node"), node, strict=True))
    elif task_id:
        about = {"task": task, "task_id": task_id}
    return {**about, **known()}


def _who(_logger: Any, _name: str, event: EventDict) -> EventDict:
    return {**event, **process(), "pid": event["_record"].process}


def dress(handlers: Iterable[logging.Handler], style: Style) -> None:
    """Have these handlers write so, coloured where they write to a terminal."""
    for handler in handlers:
        stream = getattr(handler, "stream", None)
        colours = stream is not None and bool(getattr(stream, "isatty", lambda: False)())
        handler.setFormatter(formatter(style, colours=colours))


def set_up(style: Style, service: str) -> None:
    """Log to stderr from INFO on: for a process of ours that is none of Celery's."""
    of_process(service=service)
    handler = logging.StreamHandler(sys.stderr)
    dress([handler], style)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def dress_celery(style: Style) -> None:
    """Have workers and beat of this process write so; a `worker_log_format` of your own stays where lines are for people."""

    def on_setup(logger: logging.Logger | None = None, format: str = "", **_: Any) -> None:  # noqa: A002 (Celery's name)
        if logger is not None and (style == "json" or format in _STOCK):
            # Beat logs before it says by a signal that it is one.
            of_process(service=process().get("service") or next((word for word in sys.argv[1:] if word in ("worker", "beat")), "celery"))
            dress(logger.handlers, style)

    for signal in (after_setup_logger, after_setup_task_logger):
        signal.connect(on_setup, weak=False, dispatch_uid="headgate-log-format")
