"""Reading the spans of a run's generation from the record, as far as it has come; going on from there later."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, select

from orchestrator.store import tables as t
from orchestrator.store.log_pieces import task_names
from orchestrator.store.position import START
from orchestrator.store.read import get_events, open_record
from orchestrator.trace.identity import TraceContext, trace_of
from orchestrator.trace.spans import Span, SpanReading

EVENTS_AT_ONCE = 5_000

OVER = ("ended", "refused")


class LogReading:
    """The spans of a generation, and how far its log was read for them.

    status: of the run, when it was looked at last. context: the trace that it is in.
    """

    def __init__(self, engine: Engine, run_id: str, generation: int, context: TraceContext, spans: SpanReading) -> None:
        self._engine = engine
        self._run = run_id, generation
        self._after = START
        self._spans = spans
        self.context = context
        self.status = ""

    @classmethod
    def of(cls, engine: Engine, run_id: str, generation: int) -> LogReading | None:
        """Return a reading that has not begun; None where there is no such generation. Raises Unavailable."""
        c = t.run.c
        columns = select(c.run_id, c.generation, c.tenant, c.graph_name.label("graph"), c.submitted_at, c.trace)
        with open_record(engine) as connection:
            rows = {row["generation"]: row for row in connection.execute(columns.where(c.run_id == run_id)).mappings()}
        if generation not in rows:
            return None
        context = trace_of(run_id, rows[1]["trace"] if 1 in rows else None)
        spans = SpanReading(dict(rows[generation]), task_names(engine, run_id, generation), context)
        return cls(engine, run_id, generation, context, spans)

    @property
    def nodes(self) -> int:
        """How many nodes it remembers."""
        return len(self._spans.nodes)

    def go_on(self) -> None:
        """Read what the log has by now. Raises Unavailable."""
        run_id, generation = self._run
        of_run = select(t.run.c.status).where(t.run.c.run_id == run_id, t.run.c.generation == generation)
        with open_record(self._engine) as connection:  # before the events: what is over has all of them by then
            self.status = str(connection.execute(of_run).scalar())
        while True:
            events = get_events(self._engine, run_id, generation, after=self._after, limit=EVENTS_AT_ONCE)
            self._spans.take(event.data for event in events)
            if events:
                self._after = events[-1].position
            if len(events) < EVENTS_AT_ONCE:
                return

    def untold(self) -> list[Span]:
        """Return the spans that nobody was told of: of a run that goes on those that are over, else all, the run's own last."""
        return self._spans.rest() if self.status in OVER else self._spans.finished()

    def told(self, spans: Sequence[Span]) -> None:
        """Remember that these were taken."""
        self._spans.told(spans)
