"""What beat calls every few seconds: decides which times are due, and submits their runs.

A time goes through three steps, each on record before the next: decided (compare-and-set), submitted (by its key), settled (its run is
noted). Whoever dies in between, and however many do this at once, the next pass goes on, and no time has two runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from orchestrator.client import Client
from orchestrator.kernel import Kernel
from orchestrator.recorder.ask import answer_to, append_request
from orchestrator.store import read
from orchestrator.store.schedules import due_ticks, live_runs, schedule_graph, to_decide, with_due_ticks
from tenancy.errors import Conflict, Fenced, GraphInvalid, HeadgateError, QueueFull, Rate, Unavailable, Unknown
from tenancy.priorities import Priority

from .due import DUE, decide, ready
from .lease import Lease
from .occasion import graph_at, key_of, stored_graph
from .terms import Terms

log = logging.getLogger("headgate.schedules")

SCHEDULES_AT_ONCE = 100
SUBMITTED_AT_ONCE = 200
SUBMITTED, REFUSED = "submitted", "refused"

TRIED_FOR_MS = 3_600_000
"""How long a time is tried again that there was no room for, or no worker that knows its tasks; then it is refused."""

AGAIN_MS = 30_000
REASON_MAX = 300


@dataclass
class Passed:
    """What a pass did: times decided; runs submitted; times refused, or put off to be tried again."""

    decided: int = 0
    submitted: int = 0
    refused: int = 0
    put_off: int = 0


class Ticker:
    """Safe to run at any time, several at once. Raises Unavailable and Fenced; the next pass goes on."""

    def __init__(self, kernel: Kernel, engine: Engine, clock: Callable[[], int] | None = None) -> None:
        self.link = kernel.link
        self.engine = engine
        # A run that nobody serves yet waits on record: a pass need not.
        self.client = Client(kernel.settings.model_copy(update={"worker_wait_s": 0.0}))
        self.client.kernel, self.client.engine = kernel, engine
        self._now_ms = clock or self.link.now_ms

    def tick(self) -> Passed:
        """Decide what is due, submit it, and say what was done. A pass that finds another at work does nothing."""
        passed, lease = Passed(), Lease(self.link, "schedules")
        if not lease.hold():
            return passed
        try:
            self.decide(passed)
            self.submit(passed, lease)
        finally:
            with suppress(Unavailable, Fenced):
                lease.give_up()
        return passed

    def decide(self, passed: Passed) -> None:
        """Put on record what becomes of the times that are due."""
        now = self._now_ms()
        asked: list[dict[str, Any]] = []
        with self.engine.connect() as connection:
            for row in to_decide(connection, now, SCHEDULES_AT_ONCE):
                live, waiting = live_runs(connection, *_of(row)), len(due_ticks(connection, *_of(row)))
                try:
                    asked.append(_decision(row, now, live, waiting))
                except ValueError as error:  # what was a timezone may be none any more; the others go on
                    log.error(
                        "schedule %s of tenant %s stands still: %s",
                        row["name"],
                        row["tenant"],
                        error,
                        extra={"tenant": row["tenant"], "schedule": row["name"]},
                    )
        requests = [(append_request(self.link, "request.schedule", fields), len(fields["said"]["ticks"])) for fields in asked]
        for request, ticks in requests:
            answer = answer_to(self.link, request)
            if answer["status"] == "accepted":
                passed.decided += ticks
            elif answer["status"] not in ("moved", "unknown"):
                log.error("a decision about a schedule was not taken: %s", answer.get("reason") or answer["status"])

    def submit(self, passed: Passed, lease: Lease | None = None) -> None:
        """Submit the runs of times that are due and may start, and note them."""
        done: list[list[Any]] = []
        try:
            for tick in self._to_submit():
                if lease is not None and not lease.hold():
                    break
                done.append(self._submit(tick, passed))
                if len(done) == SUBMITTED_AT_ONCE:
                    break
        finally:
            if done:
                fields = {"op": "settle", "said": {"ticks": done}}
                answer_to(self.link, append_request(self.link, "request.schedule", fields))

    def _to_submit(self) -> Iterator[_Due]:
        now = self._now_ms()
        with self.engine.connect() as connection:
            found = [
                (row, ticks, live_runs(connection, *_of(row)))
                for row in with_due_ticks(connection, now)
                for ticks in [due_ticks(connection, *_of(row))]
            ]
        for row, ticks, live in found:
            by_time = {tick["at"]: tick for tick in ticks}
            times = [at for at in ready(row["overlap"], list(by_time), live) if by_time[at]["retry_at"] <= now]
            if not times:
                continue
            with suppress(Unknown):  # it was deleted meanwhile
                spec = schedule_graph(self.engine, *_of(row))
                yield from (_Due(row, spec, at, by_time[at]["decided_at"], now) for at in times)

    def _submit(self, due: _Due, passed: Passed) -> list[Any]:
        """Submit one and return what is noted of it: tenant, schedule, time, state, run, reason, when to try again."""
        tenant, name = _of(due.row)
        terms, key = _terms(due.row), key_of(name, due.at)
        priority = None if terms.priority is None else Priority.parse(terms.priority)
        state, run, reason, again = SUBMITTED, self._run_of(tenant, key), "", 0
        try:
            if run is None:
                graph = graph_at(stored_graph(due.spec), terms.timetable.local(due.at), name)
                run = self.client.submit(graph, tenant=tenant, priority=priority, key=key, budget=terms.budget).run_id
        except Conflict:
            run = self._run_of(tenant, key)  # somebody was faster, with the graph that the schedule had then
        except (Unavailable, Fenced):
            raise
        except (GraphInvalid, Rate, QueueFull) as error:
            reason, again = _said(error), due.now + max(AGAIN_MS, int(1000 * (getattr(error, "retry_after_s", None) or 0)))
            state = DUE if due.now - due.decided_at < TRIED_FOR_MS else REFUSED
        except HeadgateError as error:
            state, reason = REFUSED, _said(error)
        passed.submitted += state == SUBMITTED
        passed.refused += state == REFUSED
        passed.put_off += state == DUE
        return [tenant, name, due.at, state, run, reason, again if state == DUE else 0]

    def _run_of(self, tenant: str, key: str) -> str | None:
        """Return the run that a time has already: whoever submitted it died before that was noted, or a backfill was faster."""
        found = (run for run in read.list_runs(self.engine, tenant=tenant, key=key) if run.status != "refused")
        return next((run.run_id for run in found), None)


@dataclass(frozen=True)
class _Due:
    row: Mapping[str, Any]
    spec: bytes
    at: int
    decided_at: int
    now: int


def _of(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["tenant"]), str(row["name"])


def _terms(row: Mapping[str, Any]) -> Terms:
    return Terms(**{field: row[field] for field in Terms.__dataclass_fields__})


def _said(error: HeadgateError) -> str:
    return " ".join(str(error).split())[:REASON_MAX]


def _decision(row: Mapping[str, Any], now: int, live: int, waiting: int) -> dict[str, Any]:
    tenant, name = _of(row)
    terms = _terms(row)
    decision = decide(terms, f"{tenant}/{name}", decided_to=row["decided_to"], now=now, live=live, waiting=waiting)
    ticks = [[tick.at, tick.state, tick.reason] for tick in decision.ticks]
    said = {"now": now, "from": row["decided_to"], "to": decision.to, "next_at": decision.next_at, "ticks": ticks}
    return {"op": "decide", "tenant": tenant, "name": name, "said": {**said, **{k: row[k] for k in ("version", "created_at")}}}
