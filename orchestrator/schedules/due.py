"""Which of a schedule's times are due now, and what becomes of each. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from .terms import Terms
from .timetable import Timetable

GRACE_MS = 60_000
"""A time that nobody decided for longer than this (and its jitter) was missed: `catch_up` says what becomes of it."""

AT_ONCE = 100
"""Times that one decision is about; the next goes on after them."""

WAITING_MAX = 100
"""Times that may wait for an earlier run to end; what comes beyond them is left out, with that reason."""

COUNTED_MAX = 1_000

DUE, SKIPPED, MISSED = "due", "skipped", "missed"


@dataclass(frozen=True)
class Tick:
    """What becomes of a time: due (to be submitted), skipped or missed; a missed one may stand for several before it, says its reason."""

    at: int
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Decision:
    """What was decided: `ticks` in their order; no time up to `to` is to be decided again; `next_at` is when there will be something to."""

    ticks: tuple[Tick, ...]
    to: int
    next_at: int | None


def decide(terms: Terms, who: str, *, decided_to: int, now: int, live: int, waiting: int) -> Decision:
    """Decide the times after `decided_to` that have come by `now` (both ms); the same arguments give the same answer.

    who: what tells schedules apart, for their jitter. live: its runs that are not over. waiting: its times that are due and not submitted.
    A `now` before `decided_to`, of a clock that was set back, decides nothing.
    """
    table = terms.timetable
    to, ticks = _missed(terms, who, decided_to, now)
    for at in table.times(to, now):
        if len(ticks) == AT_ONCE or at + jitter_ms(who, at, terms.jitter_s) > now:
            break
        reason = _left_out(terms.overlap, live, waiting)
        ticks.append(Tick(at, SKIPPED, reason) if reason else Tick(at, DUE))
        waiting += not reason
        to = at
    return Decision(tuple(ticks), to, due_at(terms, who, to))


def ready(overlap: str, due: Sequence[int], live: int) -> Sequence[int]:
    """Return which of the due times, in their order, are to be submitted now."""
    if overlap == "queue":
        return () if live else due[:1]
    return due


def due_at(terms: Terms, who: str, after: int) -> int | None:
    """Return the moment at which the first time after `after` is due, its jitter included; None where there is none."""
    at = terms.timetable.next(after)
    return None if at is None else at + jitter_ms(who, at, terms.jitter_s)


def jitter_ms(who: str, at: int, jitter_s: int) -> int:
    """Return by how much a time starts later, 0 to `jitter_s` seconds: spread evenly over schedules and times, and always the same."""
    if not jitter_s:
        return 0
    digest = hashlib.sha256(f"{who}|{at}".encode()).digest()
    return int.from_bytes(digest[:8]) % (jitter_s * 1000 + 1)


def _missed(terms: Terms, who: str, decided_to: int, now: int) -> tuple[int, list[Tick]]:
    """Return up to where `catch_up` has decided, and the tick that says so."""
    table, edge = terms.timetable, now - GRACE_MS - terms.jitter_s * 1000
    last = None if terms.catch_up == "all" or edge <= decided_to else table.last(decided_to, edge)
    if last is None:
        return decided_to, []
    followed = next((at + jitter_ms(who, at, terms.jitter_s) <= now for at in table.times(last, now)), False)
    to = last if terms.catch_up == "none" or followed else last - 1
    passed = table.last(decided_to, to)
    return (to, []) if passed is None else (to, [Tick(passed, MISSED, _counted(table.times(decided_to, to), table))])


def _counted(times: Iterator[int], table: Timetable) -> str:
    some = list(islice(times, COUNTED_MAX + 1))
    many = "1 time" if len(some) == 1 else f"{len(some)} times" if len(some) <= COUNTED_MAX else f"more than {COUNTED_MAX} times"
    return f"{many}, from {table.local(some[0]).isoformat()} on, passed while nobody decided them"


def _left_out(overlap: str, live: int, waiting: int) -> str:
    if overlap == "skip" and live + waiting:
        return "the run before it was still live"
    if overlap == "queue" and waiting >= WAITING_MAX:
        return f"{waiting} times waited already"
    return ""
