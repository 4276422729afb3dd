"""Sends the spans of runs to where OpenTelemetry's exporter sends them; a thread of the recorder, which waits for nobody."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.store import tables as t
from orchestrator.store.read import open_record
from orchestrator.store.tables import LIVE
from orchestrator.trace.identity import TraceContext
from orchestrator.trace.log_reading import OVER, LogReading
from orchestrator.trace.spans import Span
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
LOOKS_S = 10.0
"""How often runs that go on for long are looked at."""
LONG_S = 30.0
"""What has run for so long is told of while it does; what is shorter is told of once."""
LONG_MAX = 500
"""Runs that are told of while they run, the oldest ones."""
NODES_MAX = 100_000
"""Nodes of such runs that are remembered; the oldest runs are forgotten, and all of them is sent, once more, when they end."""
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
    """Sends the spans of the runs that it is told of, and of those that go on for long as their nodes end.

    What is not taken is tried again, and stops nobody. sent: spans that were taken so far.
    """

    def __init__(self, engine: Engine, exporter: SpanExporter) -> None:
        self.engine = engine
        self.sent = 0
        self._exporter = exporter
        self._wanted: dict[Run, None] = {}
        self._readings: OrderedDict[Run, LogReading] = OrderedDict()
        self._left: set[Run] = set()
        """Long runs that are too large together: read anew, and sent whole, when they end."""
        self._told = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="headgate-trace", daemon=True)

    def catch_up(self, now_ms: int) -> None:
        """Send what ended lately, in case a recorder died before it did, and begin to look at what goes on for long."""
        over = (t.run.c.finished_at >= now_ms - LOOKED_BACK_S * 1000) & t.run.c.status.in_(OVER)
        newest = select(t.run.c.run_id, t.run.c.generation).where(t.run.c.submitted_at > 0, over).order_by(t.run.c.submitted_at.desc())
        with open_record(self.engine) as connection:
            self.runs_ended((row.run_id, row.generation) for row in connection.execute(newest.limit(LEFT_MAX)).all())
        self._start()

    def runs_ended(self, runs: Iterable[Run]) -> None:
        """Have the spans of these generations sent soon; of those that have ended."""
        for run in runs:
            self._wanted[run] = None
        while len(self._wanted) > LEFT_MAX:
            self._wanted.pop(next(iter(self._wanted)))
        if self._wanted:
            self._start()
            self._told.set()

    def close(self) -> None:
        """Send what is left, within a few seconds."""
        self._ending = True
        self._told.set()
        if self._thread.ident is not None:
            self._thread.join(LAST_S)

    def _start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        wait_s, look_at = LOOKS_S, time.monotonic() + LOOKS_S
        while True:
            self._told.wait(wait_s)
            self._told.clear()
            wait_s = LOOKS_S if self._each(list(self._wanted), ended=True) else AGAIN_S
            if self._ending:
                self._exporter.shutdown()
                return
            if time.monotonic() >= look_at:
                self._send_long()
                look_at = time.monotonic() + LOOKS_S

    def _send_long(self) -> None:
        """Send what is over of runs that have gone on for long; the rest of them comes when they end."""
        c = t.run.c
        long = (c.status.in_(LIVE)) & (c.started_at < int((time.time() - LONG_S) * 1000))
        oldest = select(c.run_id, c.generation).where(long).order_by(c.submitted_at).limit(LONG_MAX)
        try:
            with open_record(self.engine) as connection:
                runs = [(str(row.run_id), int(row.generation)) for row in connection.execute(oldest).all()]
        except (SQLAlchemyError, HeadgateError) as error:
            log.warning("runs that go on were not looked at: %s", error)
            return
        self._left.intersection_update(runs)
        self._each([run for run in runs if run not in self._left], ended=False)
        while sum(reading.nodes for reading in self._readings.values()) > NODES_MAX:
            self._left.add(self._readings.popitem(last=False)[0])

    def _each(self, runs: Iterable[Run], *, ended: bool) -> bool:
        """Send what there is of each; False where one was not taken, which ends the pass. ended: it is not wanted any more then."""
        for run in runs:
            if ended:
                self._wanted.pop(run, None)
            try:
                sent = self.send(run)
            except (SQLAlchemyError, HeadgateError, OSError) as error:
                log.warning("the spans of run %s could not be read: %s", run[0], error)
                sent = False
            except (KeyError, ValueError, TypeError):
                log.exception("run %s has no spans", run[0])
                self._readings.pop(run, None)
                continue  # it will be no better the next time
            if not sent:
                if ended:
                    self._wanted[run] = None
                return False
        return True

    def send(self, run: Run) -> bool:
        """Send the spans of a generation that were not sent, of one that goes on those that are over; return whether they were taken.

        One that is not to be sampled has none.
        """
        from opentelemetry.sdk.trace.export import SpanExportResult

        reading = self._readings.get(run) or LogReading.of(self.engine, *run)
        if reading is None or not reading.context.sampled:
            return True
        self._readings[run] = reading
        reading.go_on()
        spans = reading.untold()
        for first in range(0, len(spans), AT_ONCE):
            some = spans[first : first + AT_ONCE]
            if self._exporter.export([readable(span, reading.context) for span in some]) is not SpanExportResult.SUCCESS:
                return False
            reading.told(some)
            self.sent += len(some)
        if reading.status in OVER:
            self._readings.pop(run, None)
        return True


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
