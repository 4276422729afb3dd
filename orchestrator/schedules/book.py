"""Schedules as a producer handles them: a change is on record, and holds, when its call returns."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cost.money import check_micros, parse_units
from orchestrator.awaiting import awaitable
from orchestrator.graph import Graph
from orchestrator.recorder.ask import answer_to, append_request
from orchestrator.registry import registry
from orchestrator.store import schedules as stored
from orchestrator.store.schedules import ScheduleView, TickView
from tenancy.errors import Conflict, Refused, Unavailable, Unknown
from tenancy.priorities import Priority

from .occasion import graph_at, stored_graph
from .terms import Terms

if TYPE_CHECKING:
    from orchestrator.client import Client

Changed = dict[str, tuple[Any, Any]]
"""Field to what it was and what it is."""


class Schedules:
    """The schedules of a client's platform; a name is 1 to 63 letters, digits, '_' and '-', unique within its tenant.

    Every call may raise Unavailable; a change that was asked for may then have been made, and asking again is safe.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        name: str,
        graph: Graph,
        *,
        tenant: str = "default",
        cron: str | None = None,
        every_s: int | None = None,
        timezone: str = "UTC",
        catch_up: str = "one",
        overlap: str = "skip",
        jitter_s: int = 0,
        budget: str | int | None = None,
        priority: Priority | str | None = None,
        labels: Mapping[str, str] | None = None,
        reason: str = "",
        by: str | None = None,
    ) -> ScheduleView:
        """Have a graph run at times, from now on, and return the schedule; one that is so already is returned as it is.

        In the graph's params `{"$schedule": "time"}` is the scheduled time and `{"$schedule": "date"}` its day, in the timezone.
        cron, every_s, timezone, catch_up, overlap, jitter_s: as `Terms` takes them. budget: of each run, units as text or whole micros.
        labels: laid over the graph's. Raises Conflict when the name has another schedule, GraphInvalid, Unknown for the tenant, and
        Refused when something else does not fit.
        """
        times = {"cron": cron, "every_s": every_s, "timezone": timezone, "catch_up": catch_up, "overlap": overlap, "jitter_s": jitter_s}
        terms = terms_of(**times, budget=budget, priority=priority)
        prepared = self._prepared(graph, labels, name, terms)
        answer = self._ask("create", tenant, name, reason, by, {"terms": terms.said()}, prepared)
        if answer["status"] == "exists":
            raise Conflict(f"tenant {tenant!r} has another schedule {name!r}; change it with `headgate schedule set`, or use another name")
        return self.show(name, tenant=tenant)

    def show(self, name: str, *, tenant: str = "default") -> ScheduleView:
        """Return a schedule. Raises Unknown."""
        return stored.get_schedule(self._client.engine, tenant, name)

    def list(self, tenant: str | None = None) -> tuple[ScheduleView, ...]:
        """Return all schedules, or those of a tenant, by tenant and name."""
        return tuple(stored.schedules(self._client.engine, tenant))

    def graph(self, name: str, *, tenant: str = "default") -> Graph:
        """Return the graph of a schedule, in which the scheduled time is still open. Raises Unknown."""
        return stored_graph(stored.schedule_graph(self._client.engine, tenant, name))

    def ticks(self, name: str, *, tenant: str = "default", limit: int = 20) -> tuple[TickView, ...]:
        """Return what became of the newest times of a schedule, newest first, at most `limit` (1 to 1,000). Raises Unknown."""
        self.show(name, tenant=tenant)
        return tuple(stored.ticks(self._client.engine, tenant, name, max(1, min(limit, 1000))))

    def set(
        self, /, name: str, *, tenant: str = "default", graph: Graph | None = None, reason: str = "", by: str | None = None, **terms: Any
    ) -> Changed:
        """Change terms of a schedule, or its graph, and return what changed; a cron expression takes the place of an interval.

        With other times or another timezone, those that passed before are left as they were decided. Times that were decided and not
        submitted yet run the new graph. Raises Unknown, GraphInvalid, and Refused when something does not fit.
        """
        changes = _plain(terms)
        new = _evolved(self.show(name, tenant=tenant).terms, changes)
        prepared = None if graph is None else self._prepared(graph, None, name, new)
        answer = self._ask("set", tenant, name, reason, by, {"terms": changes}, prepared)
        return {field: (old, new) for field, (old, new) in (answer.get("changed") or {}).items()}

    def pause(self, name: str, *, tenant: str = "default", reason: str = "", by: str | None = None) -> bool:
        """Submit nothing of a schedule until it is resumed; its runs go on. False when it was paused. Raises Unknown."""
        return bool(self._ask("pause", tenant, name, reason, by, {})["status"] == "accepted")

    def resume(self, name: str, *, tenant: str = "default", reason: str = "", by: str | None = None) -> bool:
        """End a pause; times that passed meanwhile are not made up. False when there was none. Raises Unknown."""
        return bool(self._ask("resume", tenant, name, reason, by, {})["status"] == "accepted")

    def delete(self, name: str, *, tenant: str = "default", reason: str = "", by: str | None = None) -> None:
        """Forget a schedule and its times; its runs go on, and stay on record. Raises Unknown."""
        self._ask("delete", tenant, name, reason, by, {})

    # -- the same for asyncio: one implementation, in threads -------------------------------------

    acreate = awaitable(create)
    ashow = awaitable(show)
    alist = awaitable(list)  # noqa: A003 (the method is meant)
    agraph = awaitable(graph)
    aticks = awaitable(ticks)
    aset = awaitable(set)  # noqa: A003 (the method is meant)
    apause = awaitable(pause)
    aresume = awaitable(resume)
    adelete = awaitable(delete)

    def _prepared(self, graph: Graph, labels: Mapping[str, str] | None, name: str, terms: Terms) -> Graph:
        """Return the graph as it is kept; it is checked with its next time filled in, as its runs will be."""
        resolved = graph.resolved(registry)
        if labels:
            resolved = resolved.evolve(labels={**resolved.labels, **labels})
        example = graph_at(resolved, terms.timetable.local(terms.timetable.next(self._client.kernel.link.now_ms()) or 0), name)
        self._client.check(example)
        return resolved

    def _ask(
        self, op: str, tenant: str, name: str, reason: str, by: str | None, said: Mapping[str, Any], graph: Graph | None = None
    ) -> dict[str, Any]:
        if graph is not None:
            said = {**said, "graph": graph.name, "digest": graph.digest}
        fields = {"op": op, "tenant": tenant, "name": name, "reason": reason, "by": by or getpass.getuser(), "said": said}
        link = self._client.kernel.link
        answer = answer_to(link, append_request(link, "request.schedule", fields, payload=None if graph is None else graph.canonical()))
        status = answer["status"]
        if status == "unknown_tenant":
            raise Unknown(f"there is no tenant {tenant!r}")
        if status == "unknown":
            raise Unknown(f"tenant {tenant!r} has no schedule {name!r}; `headgate schedule list` names them")
        if status == "invalid":
            raise Refused(str(answer["reason"]))
        if status == "lost":
            raise Unavailable("the schedule was not stored; ask again")
        return answer


def _plain(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return terms as the record has them: amounts in micros, priorities as numbers."""
    found = dict(said)
    budget, priority = found.get("budget"), found.get("priority")
    try:
        if isinstance(budget, str):
            found["budget"] = parse_units(budget)
        elif budget is not None:
            found["budget"] = check_micros(budget)
    except (ValueError, TypeError) as error:
        raise Refused(str(error)) from None
    if priority is not None:
        found["priority"] = int(Priority.parse(priority))
    return found


def terms_of(**said: Any) -> Terms:
    """Return the terms that a producer names: amounts may be units as text, priorities words. Raises Refused."""
    try:
        return Terms.of(_plain(said))
    except ValueError as error:
        raise Refused(str(error)) from None


def _evolved(terms: Terms, changes: Mapping[str, Any]) -> Terms:
    try:
        return terms.evolve(**changes)
    except ValueError as error:
        raise Refused(str(error)) from None
