"""A run's log as spans: the run, its nodes from when they were due, each of their attempts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.trace.identity import TraceContext, parse_traceparent, span_of, trace_of
from orchestrator.trace.nesting import current_traceparent
from orchestrator.trace.spans import Span, SpanReading, spans_of

RUN = {"run_id": "01abc", "generation": 1, "tenant": "acme", "graph": "daily", "submitted_at": 1_000}
PARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
EVENTS: list[dict[str, Any]] = [
    {"t": "run.started", "at": 1_100},
    {"t": "node.due", "at": 1_100, "nodes": ["a", "b"]},
    {"t": "node.began", "at": 1_300, "node": "a", "attempt": 1, "worker": "w1"},
    {"t": "node.lost", "at": 1_900, "node": "a", "attempt": 1},
    {"t": "node.due", "at": 1_900, "nodes": ["a"]},
    {"t": "node.began", "at": 2_000, "node": "a", "attempt": 2, "worker": "w2", "verdict": "cheap"},
    {"t": "money.settled", "at": 2_400, "node": "a", "attempt": 2, "amount": 700},
    {"t": "node.ended", "at": 2_400, "node": "a", "attempt": 2, "outcome": "succeeded"},
    {"t": "node.began", "at": 1_400, "node": "b", "attempt": 1, "worker": "w1"},
    {"t": "node.retry", "at": 1_500, "node": "b", "outcome": "failed", "error": {"type": "OSError", "message": "password=hush"}},
    {"t": "node.due", "at": 1_500, "nodes": ["b"]},
    {"t": "node.began", "at": 1_600, "node": "b", "attempt": 2, "worker": "w1"},
    {"t": "node.ended", "at": 1_700, "node": "b", "attempt": 2, "outcome": "failed", "error": {"type": "ValueError", "message": "hush"}},
    {"t": "node.ended", "at": 1_700, "node": "c", "outcome": "upstream_failed"},
    {"t": "run.ended", "at": 2_500, "outcome": "failed", "cost": 700},
]


def spans(context: TraceContext, events: list[dict[str, Any]] = EVENTS) -> dict[str, Span]:
    found = spans_of(RUN, {"a": "load", "b": "parse"}, events, context)
    return {f"{span.attributes.get('headgate.node', '')}.{span.attributes.get('headgate.attempt', '')}": span for span in found}


def test_a_run_is_a_span_above_its_nodes_and_they_are_above_their_attempts() -> None:
    found = spans(parse_traceparent(PARENT))
    assert set(found) == {".", "a.", "a.1", "a.2", "b.", "b.1", "b.2"}  # c was never due
    root = found["."]
    assert (root.name, root.parent_id, root.start_ms, root.end_ms, root.error) == ("run daily", "cd" * 8, 1_000, 2_500, "failed")
    assert (found["a."].name, found["a."].parent_id, found["a."].start_ms, found["a."].end_ms) == ("load", root.span_id, 1_100, 2_400)
    assert found["a."].attributes["headgate.cost_micros"] == 700
    assert found["a.2"].parent_id == found["a."].span_id
    assert found["a.2"].attributes["headgate.variant"] == "cheap"
    assert len({span.span_id for span in found.values()}) == len(found)


def test_an_attempt_that_was_killed_shows_and_one_that_failed_says_by_which_error_and_no_more() -> None:
    found = spans(trace_of("01abc", None))
    lost = found["a.1"]
    assert (lost.start_ms, lost.end_ms, lost.error, lost.attributes["headgate.outcome"]) == (1_300, 1_900, "its worker died", "lost")
    assert (found["a."].error, found["b."].error, found["b.1"].error) == (None, "ValueError", "OSError")
    assert "hush" not in repr(found)
    assert found["."].parent_id is None


def test_the_same_log_gives_the_same_ids_whoever_reads_it() -> None:
    assert spans(trace_of("01abc", None)) == spans(trace_of("01abc", None))
    assert trace_of("01abc", None) != trace_of("01abd", None)
    assert spans(trace_of("01abc", None))["a.2"].span_id == span_of("01abc", 1, "a", 2)


def test_what_is_over_is_told_while_the_run_goes_on_each_span_once_and_the_run_last() -> None:
    context = trace_of("01abc", None)
    reading = SpanReading(RUN, {"a": "load", "b": "parse"}, context)
    told: list[Span] = []

    def tell() -> list[str]:
        found = reading.finished()
        reading.told(found)
        told.extend(found)
        return sorted(f"{span.attributes['headgate.node']}.{span.attributes.get('headgate.attempt', '')}" for span in found)

    reading.take(EVENTS[:4])
    assert tell() == ["a.1"], "the attempt that was lost; its node goes on"
    reading.take(EVENTS[4:8])
    assert tell() == ["a.", "a.2"]
    assert tell() == []
    reading.take(EVENTS[8:13])
    assert tell() == ["b.1", "b.2"], "the node b was not charged yet, which is part of its span"
    reading.take([{"t": "money.settled", "at": 1_800, "node": "b", "attempt": 2, "amount": 40}])
    assert tell() == ["b."]
    reading.take([{"t": "money.settled", "at": 1_900, "node": "a", "attempt": 1, "amount": 5, "kind": "waste"}])
    reading.take(EVENTS[13:])
    rest = reading.rest()
    assert [span.attributes.get("headgate.node") for span in rest] == ["a", None], "what changed is told again, and the run comes last"
    assert rest[0].attributes["headgate.cost_micros"] == 705


@given(st.permutations(EVENTS), st.integers(0, len(EVENTS)))
def test_no_log_gives_a_span_that_ends_before_it_begins(events: list[dict[str, Any]], kept: int) -> None:
    assert all(span.end_ms >= span.start_ms for span in spans_of(RUN, {}, events[:kept], trace_of("01abc", None)))


NONE = ("", "hello", PARENT[:-1], PARENT.upper(), "ff" + PARENT[2:], PARENT + "-more", "x" * 1_000)
ZEROS = (PARENT.replace("ab" * 16, "0" * 32), PARENT.replace("cd" * 8, "0" * 16))


@pytest.mark.parametrize("text", [*NONE, *ZEROS])
def test_what_is_no_traceparent_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match="write 00, 32 hex digits") as refused:
        parse_traceparent(text)
    assert len(str(refused.value)) < 300


def test_a_later_version_of_the_format_is_read_as_far_as_it_is_known() -> None:
    later = parse_traceparent("01" + PARENT[2:] + "-more")
    assert (later.trace_id, later.span_id, later.sampled) == ("ab" * 16, "cd" * 8, True)
    assert later.traceparent == PARENT
    assert not parse_traceparent(PARENT[:-1] + "0").sampled


def test_outside_of_a_span_there_is_nothing_to_carry() -> None:
    assert current_traceparent() is None
    from opentelemetry.sdk.trace import TracerProvider

    with TracerProvider().get_tracer("producer").start_as_current_span("order") as span:
        context = span.get_span_context()
        carried = parse_traceparent(current_traceparent() or "")
        assert carried == TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", sampled=True)
