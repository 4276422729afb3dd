"""What a producer's process and a worker's know of traces: nothing, unless the code that runs in them uses OpenTelemetry already."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.store.read import traceparent
from orchestrator.trace.identity import TraceContext, span_of, trace_of
from tenancy.errors import HeadgateError

RUNS_KEPT = 1_000
API = "opentelemetry.trace"
"""Whoever makes spans has imported it."""


def current_traceparent() -> str | None:
    """Return the span that this code runs in, as W3C writes it; None without OpenTelemetry, and outside of spans."""
    api: Any = sys.modules.get(API)
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


class Nesting:
    """Has spans that task code makes lie under the span of their attempt. Reads the trace of a run once, and only where it is needed."""

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._known: OrderedDict[str, TraceContext] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def attempt(self, run_id: str, generation: int, node: str, attempt: int) -> Iterator[None]:
        """Run what is within as part of the attempt's span, which the recorder tells of when the run is over."""
        api: Any = sys.modules.get(API)
        context = None if api is None else self._trace(run_id)
        if api is None or context is None:
            yield
            return
        flags = api.TraceFlags(api.TraceFlags.SAMPLED if context.sampled else api.TraceFlags.DEFAULT)
        span_id = int(span_of(run_id, generation, node, attempt), 16)
        above = api.NonRecordingSpan(api.SpanContext(int(context.trace_id, 16), span_id, is_remote=True, trace_flags=flags))
        with api.use_span(above, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            yield

    def _trace(self, run_id: str) -> TraceContext | None:
        """Return a run's trace; None while the record is away, for no work waits for its trace."""
        with self._lock:
            if run_id in self._known:
                self._known.move_to_end(run_id)
                return self._known[run_id]
        try:
            found = trace_of(run_id, traceparent(self._engine(), run_id))
        except (SQLAlchemyError, HeadgateError, ValueError):
            return None
        with self._lock:
            self._known[run_id] = found
            if len(self._known) > RUNS_KEPT:
                self._known.popitem(last=False)
        return found
