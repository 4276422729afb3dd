"""The ids of a run's trace and of its spans: made from names alone, so that what is exported twice is the same, and a worker knows them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True)
class TraceContext:
    """The trace that a run belongs to, and the span of its producer (16 hex digits, None where it came with none).

    sampled: whether its spans are wanted, as the producer said; True without one.
    """

    trace_id: str
    span_id: str | None = None
    sampled: bool = True

    @property
    def traceparent(self) -> str | None:
        """The producer's span as W3C writes it, None without one."""
        return None if self.span_id is None else f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def parse_traceparent(text: str) -> TraceContext:
    """Return what a `traceparent` says (https://www.w3.org/TR/trace-context/). Raises ValueError for what is none."""
    found = _TRACEPARENT.fullmatch(text.strip())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]) or not int(found[2], 16) or not int(found[3], 16):
        raise ValueError(f"{text[:80]!r} is no traceparent; write 00, 32 hex digits of the trace, 16 of the span and 2 flags, joined by -")
    return TraceContext(found[2], found[3], bool(int(found[4], 16) & 1))


def trace_of(run_id: str, traceparent: str | None) -> TraceContext:
    """Return the trace of a run: its producer's, else one of its own."""
    return parse_traceparent(traceparent) if traceparent else TraceContext(_hash(f"trace {run_id}", 16))


def span_of(run_id: str, generation: int, node: str | None = None, attempt: int | None = None) -> str:
    """Return the id of a span, 16 hex digits: of a run's generation, of a node of it, or of an attempt of that."""
    return _hash(f"span {run_id}.{generation}" + ("" if node is None else f" {node}") + ("" if attempt is None else f" {attempt}"), 8)


def _hash(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size, person=b"headgate").hexdigest()
