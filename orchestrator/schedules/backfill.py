"""A backfill: the runs of a graph for each time of a range, so many at a time; asked for again, it goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import TYPE_CHECKING

from orchestrator.awaiting import given_up
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.note import note
from orchestrator.store import read
from tenancy.errors import QueueFull, Rate, Refused, RunsLimit
from tenancy.priorities import Priority

from .lease import TTL_MS, Lease
from .occasion import graph_at, key_of, key_of_backfill
from .terms import Terms

if TYPE_CHECKING:
    from orchestrator.client import Client

TIMES_MAX = 100_000
CONCURRENCY_MAX = 1_000
POLL_S = 0.1
PATIENCE_S = TTL_MS / 1000 + 2
"""How long a backfill waits for the lease of another that may have died."""


@dataclass(frozen=True)
class Backfilled:
    """A time of the range and its run. earlier: it was there before this call."""

    at: datetime
    run: RunHandle
    earlier: bool


class Backfill:
    """The times of a range, each with one run, under the key of its schedule or of its graph.

    schedule: the name whose runs these are; None for a graph without one. `since` is in the range, `until` is not; a date is its
    midnight, and a time without an offset is in the timezone of `terms`.
    Raises Refused for a range that does not fit.
    """

    def __init__(
        self,
        client: Client,
        graph: Graph,
        terms: Terms,
        since: datetime | date | str,
        until: datetime | date | str,
        *,
        tenant: str = "default",
        schedule: str | None = None,
        concurrency: int = 1,
        by: str | None = None,
        reason: str = "",
    ) -> None:
        if type(concurrency) is not int or not 1 <= concurrency <= CONCURRENCY_MAX:
            raise Refused(f"the concurrency is {concurrency!r}; give 1 to {CONCURRENCY_MAX}")
        self.client, self.graph, self.terms = client, graph, terms
        self.tenant, self.schedule, self.concurrency = tenant, schedule, concurrency
        self.times = self._times(_moment(since, terms), _moment(until, terms))
        self._keyed = self.schedule or self.graph.name
        self.by, self.reason = by, reason

    def run(self) -> Iterator[Backfilled]:
        """Submit each time that has no run yet, at most `concurrency` live at once, and yield each when its run is over.

        Whoever stops iterating, or dies, leaves what was submitted; the next call waits for that first. Raises Refused when another
        process is at the same backfill, and as `Client.submit`; limits that say when to try again are waited for.
        """
        lease = Lease(self.client.kernel.link, f"backfill:{self.tenant}:{self._keyed}")
        self._take(lease)
        try:
            self._note()
            left = list(reversed(self.times))
            live: dict[int, Backfilled] = {}
            while (left or live) and not given_up():
                if not lease.hold():
                    raise self._busy()
                while left and len(live) < self.concurrency and (found := self._begin(left[-1])) is not None:
                    live[left.pop()] = found
                ended = [at for at, each in live.items() if each.run.status in ("ended", "refused")]
                for at in ended:
                    yield live.pop(at)
                if live and not ended:
                    time.sleep(POLL_S)
        finally:
            lease.give_up()

    def _note(self) -> None:
        """Have the audit say who fills which range; once more for each call that goes on with it."""
        first, last = (self.terms.timetable.local(at).isoformat() for at in (self.times[0], self.times[-1])) if self.times else ("", "")
        said = {"first": first, "last": last, "times": len(self.times), "concurrency": self.concurrency}
        note(self.client.kernel.link, "backfill.begun", self._keyed, self.by, self.reason, tenant=self.tenant, **said)

    def _begin(self, at: int) -> Backfilled | None:
        """Return the run of a time, submitted if there is none; None where it is to be tried again in a moment."""
        local = self.terms.timetable.local(at)
        key = key_of_backfill(self.graph.name, at) if self.schedule is None else key_of(self.schedule, at)
        for found in read.list_runs(self.client.engine, tenant=self.tenant, key=key):
            if found.status != "refused":
                return Backfilled(local, self.client.run(found.run_id), earlier=True)
        graph = graph_at(self.graph, local, self.schedule)
        priority = None if self.terms.priority is None else Priority.parse(self.terms.priority)
        try:
            run = self.client.submit(graph, tenant=self.tenant, key=key, budget=self.terms.budget, priority=priority)
        except (Rate, QueueFull, RunsLimit) as error:
            if error.retry_after_s is None:
                raise
            time.sleep(min(error.retry_after_s, TTL_MS / 2000))
            return None
        return Backfilled(local, run, earlier=False)

    def _times(self, since: int, until: int) -> tuple[int, ...]:
        if until <= since:
            raise Refused("the range ends before it begins; give --to a later time than --from")
        if until > self.client.kernel.link.now_ms():
            raise Refused("the range ends in the future; a backfill is for times that have passed")
        found = tuple(islice(self.terms.timetable.times(since - 1, until - 1), TIMES_MAX + 1))
        if len(found) > TIMES_MAX:
            raise Refused(f"the range has more than {TIMES_MAX:,} times; fill it in parts")
        return found

    def _take(self, lease: Lease) -> None:
        """Take the lease; one that died with its process ends by itself."""
        until = time.monotonic() + PATIENCE_S
        while not lease.hold():
            if time.monotonic() > until:
                raise self._busy()
            time.sleep(POLL_S)

    def _busy(self) -> Refused:
        return Refused(f"another process is at a backfill of {self._keyed!r} of tenant {self.tenant!r}; let it end, or end it")


def _moment(said: datetime | date | str, terms: Terms) -> int:
    try:
        found = datetime.fromisoformat(said) if isinstance(said, str) else said
    except ValueError:
        raise Refused(f"{str(said)[:40]!r} is no date or time; write it as 2026-11-22 or 2026-11-22T14:30") from None
    if not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day)  # noqa: DTZ001 - it gets its timezone below
    if found.tzinfo is None:
        found = found.replace(tzinfo=terms.timetable.zone)
    try:
        return int(found.timestamp()) * 1000 + (1000 if found.microsecond else 0)
    except (ValueError, OverflowError):
        raise Refused(f"{said} is out of range; give a year from 1970 on") from None
