"""Sends the spans of runs that ended to where OpenTelemetry's exporter sends them; a thread of the recorder, which waits for nobody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.store import tables as t
from orchestrator.store.log_pieces import task_names
from orchestrator.store.read import get_events, open_record
from orchestrator.trace.identity import TraceContext, trace_of
from orchestrator.trace.spans import Span, spans_of
from tenancy.errors import HeadgateError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger("headgate.trace")

LOOKED_BACK_S = 600
"""Runs that ended in so many seconds before a start are sent again: their spans have the same ids."""
LEFT_MAX = 10_000
"""Runs that wait while nobody takes their spans; above, the oldest are given up."""
AT_ONCE = 512
"""Spans in one message."""
AGAIN_S = 5.0
LAST_S = 3.0

Run = tuple[str, int]


def open_exporter(endpoint: str) -> SpanExporter:
    """Return what sends spans to an OTLP endpoint over HTTP, such as http://collector:4318. Raises HeadgateError where it is not installed.

    What else it may need (OTEL_EXPORTER_OTLP_HEADERS, certificates) comes from OpenTelemetry's own environment variables.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise HeadgateError(f"otlp_endpoint is set, and {error.name} is missing; install headgate[otel], or unset it") from error
    return OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=5)


class TraceExporter:
    """Sends the spans of the runs that it is told of; what is not taken is tried again, and stops nobody."""

    def __init__(self, engine: Engine, exporter: SpanExporter) -> None:
        self.engine = engine
        self._exporter = exporter
        self._wanted: dict[Run, None] = {}
        self._told = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="headgate-trace", daemon=True)

    def catch_up(self, now_ms: int) -> None:
        """Send what ended lately, in case a recorder died before it did."""
        over = (t.run.c.finished_at >= now_ms - LOOKED_BACK_S * 1000) & t.run.c.status.in_(("ended", "refused"))
        newest = select(t.run.c.run_id, t.run.c.generation).where(t.run.c.submitted_at > 0, over).order_by(t.run.c.submitted_at.desc())
        with open_record(self.engine) as connection:
            self.runs_ended((row.run_id, row.generation) for row in connection.execute(newest.limit(LEFT_MAX)).all())

    def runs_ended(self, runs: Iterable[Run]) -> None:
        """Have the spans of these generations sent soon; of those that have ended."""
        for run in runs:
            self._wanted[run] = None
        while len(self._wanted) > LEFT_MAX:
            self._wanted.pop(next(iter(self._wanted)))
        if self._wanted:
            if self._thread.ident is None:
                self._thread.start()
            self._told.set()

    def close(self) -> None:
        """Send what is left, within a few seconds."""
        self._ending = True
        self._told.set()
        if self._thread.ident is not None:
            self._thread.join(LAST_S)

    def _run(self) -> None:
        wait_s: float | None = None
        while True:
            self._told.wait(wait_s)
            self._told.clear()
            wait_s = None if self._send_wanted() else AGAIN_S
            if self._ending:
                self._exporter.shutdown()
                return

    def _send_wanted(self) -> bool:
        for run in list(self._wanted):
            self._wanted.pop(run, None)
            try:
                sent = self.send(run)
            except (SQLAlchemyError, HeadgateError, OSError) as error:
                log.warning("the spans of run %s could not be read: %s", run[0], error)
                sent = False
            except (KeyError, ValueError, TypeError):
                log.exception("run %s has no spans", run[0])
                continue  # it will be no better the next time
            if not sent:
                self._wanted[run] = None
                return False
        return True

    def send(self, run: Run) -> bool:
        """Send the spans of a generation; return whether they were taken. One that is not over, or not to be sampled, has none."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans = self._spans(run)
        for first in range(0, len(spans), AT_ONCE):
            if self._exporter.export(spans[first : first + AT_ONCE]) is not SpanExportResult.SUCCESS:
                return False
        return True

    def _spans(self, run: Run) -> Sequence[ReadableSpan]:
        run_id, generation = run
        c = t.run.c
        columns = select(c.run_id, c.generation, c.tenant, c.graph_name.label("graph"), c.submitted_at, c.status, c.trace)
        with open_record(self.engine) as connection:
            rows = {row["generation"]: row for row in connection.execute(columns.where(c.run_id == run_id)).mappings()}
        if generation not in rows or rows[generation]["status"] not in ("ended", "refused"):
            return []
        context = trace_of(run_id, rows[1]["trace"] if 1 in rows else None)
        if not context.sampled:
            return []
        events = (event.data for event in get_events(self.engine, run_id, generation))
        tasks = task_names(self.engine, run_id, generation)
        return [readable(span, context) for span in spans_of(dict(rows[generation]), tasks, events, context)]


def readable(span: Span, context: TraceContext) -> ReadableSpan:
    """Return a span as exporters of OpenTelemetry take it."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
    from opentelemetry.trace.status import Status, StatusCode

    def placed(span_id: str, *, remote: bool = False) -> Any:
        return SpanContext(int(context.trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    status = Status(StatusCode.OK) if span.error is None else Status(StatusCode.ERROR, span.error)
    return ReadableSpan(
        name=span.name,
        context=placed(span.span_id),
        parent=None if span.parent_id is None else placed(span.parent_id, remote=True),
        resource=Resource({"service.name": "headgate", "service.version": version("headgate")}),
        attributes=span.attributes,
        kind=SpanKind.INTERNAL,
        status=status,
        start_time=span.start_ms * 1_000_000,
        end_time=span.end_ms * 1_000_000,
        instrumentation_scope=InstrumentationScope("headgate"),
    )
