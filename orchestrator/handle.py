"""A handle: one run as its producer sees it, from the record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import redis

from orchestrator import keys
from orchestrator.awaiting import awaitable, given_up
from orchestrator.graph import Graph
from orchestrator.logs.line import LogLine
from orchestrator.logs.reading import LogReader
from orchestrator.store import read
from orchestrator.store.run_nodes import ran_in
from orchestrator.trace.identity import trace_of
from tenancy.errors import RunFailed, Unavailable, Unknown, WaitTimeout

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.deadlines import Extended
    from orchestrator.explain import Step
    from orchestrator.generations import What
    from orchestrator.store.decisions import DecisionView
    from tenancy.priorities import Priority

POLL_S = 0.5
"""How often a waiting handle looks at the record itself, should an announcement be lost."""


class RunHandle:
    """One generation of a run. Every property reads the record anew; nothing here is a promise that the record has not made.

    Under asyncio use `aview`, `anodes`, `aevents` and the other calls with an `a` before their name: a property blocks its thread.
    """

    def __init__(self, client: Client, run_id: str, generation: int) -> None:
        self.client = client
        self.run_id = run_id
        self.generation = generation

    def __repr__(self) -> str:
        return f"<run {self.run_id} {self.outcome or self.status}>"

    @property
    def status(self) -> str:
        """submitted, held (it waits to be admitted), running, cancelling, ended or refused."""
        row = self.view()
        return "held" if self._why(row) is not None else row.status

    @property
    def held(self) -> tuple[str, float] | None:
        """Why the run waits and since when (epoch seconds), None when it does not.

        runs: its tenant runs as many as it may. budget: the money is not free yet. backpressure: its pools have enough to do. worker:
        nobody serves its pool, or one of its tasks. A run that stands behind another waits for the same.
        """
        row = self.view()
        why = self._why(row)
        return None if why is None else (why, row.submitted_at)

    @property
    def outcome(self) -> str | None:
        """succeeded, degraded, failed, cancelled or terminated_by_cost; None before the end."""
        return self.view().outcome

    @property
    def cost_micros(self) -> int:
        """What the run was charged so far."""
        return self.view().cost_micros

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """Every node as `headgate show --json` has it."""
        return self._nodes()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The run's event log, oldest first."""
        return self._events()

    def view(self) -> read.RunView:
        """Return what the record says of the run now: status, outcome, times, counts, money, in one look."""
        return read.get_run(self.client.engine, self.run_id, self.generation)

    @property
    def trace_id(self) -> str:
        """The trace of OpenTelemetry that the run's spans belong to, 32 hex digits."""
        return trace_of(self.run_id, read.traceparent(self.client.engine, self.run_id)).trace_id

    def wait(self, timeout_s: float | None = None) -> RunHandle:
        """Return this handle once the end of the run is on record.

        Raises WaitTimeout after `timeout_s` seconds (None: never); the run goes on. Never raises on an outcome.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self.client.kernel.link.client.pubsub(ignore_subscribe_messages=True) as announcements:
            try:
                announcements.subscribe(keys.ENDED)
            except redis.RedisError:
                announcements = None
            while self.view().status not in ("ended", "refused"):
                if given_up():
                    raise WaitTimeout(f"nobody waits for run {self.run_id} any more; it goes on")
                left = POLL_S if until is None else until - time.monotonic()
                if left <= 0:
                    raise WaitTimeout(f"run {self.run_id} is still {self.status} after {timeout_s:g} s; it goes on")
                self._listen(announcements, min(POLL_S, left))
        return self

    def _listen(self, announcements: Any, for_s: float) -> None:
        """Return when something was announced for this run, at the latest after `for_s` seconds."""
        until = time.monotonic() + for_s
        while (left := until - time.monotonic()) > 0:
            try:
                message = announcements.get_message(timeout=left) if announcements is not None else None
            except redis.RedisError:
                message = None
            if message is None:
                time.sleep(min(0.05, max(0.0, until - time.monotonic())))
            elif str(message["data"]).startswith(self.run_id):
                return

    def result(self, node: str | None = None) -> Any:
        """Return what a node returned; without `node` that of the graph's only sink.

        Raises RunFailed with outcome, node and cause when there is none, HeadgateError when the graph has several sinks.
        """
        row = self.view()
        spec = read.get_graph(self.client.engine, self.run_id, self.generation)
        if spec is None:
            raise RunFailed(row.outcome or row.status, None, "its graph is not on record")
        wanted = node or Graph.model_validate_json(spec).sink
        found = next((n for n in read.get_nodes(self.client.engine, self.run_id, self.generation) if n.id == wanted), None)
        if found is None:
            raise Unknown(f"run {self.run_id} has no node {wanted!r}")
        if found.outcome != "succeeded" or found.result is None:
            raise RunFailed(row.outcome or row.status, wanted, _cause(found.error) or found.reason or found.outcome)
        return self.client.kernel.results.decode(found.result)

    def logs(self, node: str | None = None, attempt: int | None = None) -> list[LogLine]:
        """Return what the run's nodes logged and printed, by time: the last 256 KB of each attempt, secrets hidden.

        Of one node, or one attempt at it, where these are named; of what runs, up to about a quarter of a second ago. A node that
        was adopted said what it said in the generation that ran it.

        Raises Unknown where there is no such node, ValueError for an attempt without a node, HeadgateError where the logs of all nodes
        are more than 64 MB, Unavailable.
        """
        return self.log_reader(node, attempt).more()

    def log_reader(self, node: str | None = None, attempt: int | None = None) -> LogReader:
        """Return what reads the lines of `logs`, and then those that came since; raises likewise."""
        if attempt is not None and node is None:
            raise ValueError("an attempt is one at a node: name the node, too")
        generation = self.generation if node is None else ran_in(self.client.engine, self.run_id, self.generation, node)
        return LogReader(self.client.node_logs, self.run_id, generation, node, attempt)

    def cancel(
        self,
        nodes: str | Sequence[str] | None = None,
        *,
        below: bool = False,
        now: bool = False,
        reason: str = "cancelled by its producer",
        by: str | None = None,
    ) -> bool:
        """Cancel the run, or some of its nodes, as `Client.cancel`; once this returns nothing of that begins."""
        return self.client.cancel(self.run_id, nodes, below=below, now=now, reason=reason, by=by)

    def reprioritise(self, priority: Priority | str, *, reason: str = "", by: str | None = None) -> bool:
        """Give all of the run this priority, as `Client.reprioritise`."""
        return self.client.reprioritise(self.run_id, priority, reason=reason, by=by)

    def extend_deadline(self, timeout_s: int, node: str | None = None, *, reason: str = "", by: str | None = None) -> Extended:
        """Give the run's nodes, or one of them, `timeout_s` seconds, as `Client.extend_deadline`."""
        return self.client.extend_deadline(self.run_id, timeout_s, node, reason=reason, by=by)

    def rerun(
        self,
        nodes: str | Sequence[str] | None = None,
        what: What = "failed",
        *,
        budget: str | int | None = None,
        reason: str = "",
        by: str | None = None,
    ) -> RunHandle:
        """Open the run's next generation and return its handle; as `Client.rerun`."""
        return self.client.rerun(self.run_id, nodes, what, budget=budget, reason=reason, by=by)

    def approve(self, *, budget: str | int | None = None, reason: str, by: str | None = None) -> RunHandle:
        """Let the run go on that its cost has ended, or that is held; return the generation that does; as `Client.approve`."""
        return self.client.approve(self.run_id, budget=budget, reason=reason, by=by)

    def decisions(self) -> list[DecisionView]:
        """Return what the cost agent decided about this generation of the run, oldest first."""
        return self.client.decisions(run=self.run_id, generation=self.generation)

    def explain(self, node: str | None = None) -> list[Step]:
        """Walk back from what a node, or the run, has come to; as `Client.explain`."""
        return self.client.explain(self.run_id, node, generation=self.generation)

    def _why(self, row: read.RunView) -> str | None:
        """Why the run waits, None when it does not; state knows of it a moment before the record does."""
        if row.status != "submitted":
            return (row.reason or "") if row.status == "held" else None
        try:
            status, why = self.client.kernel.link.read("HMGET", keys.of_run("run", f"{self.run_id}.{self.generation}"), "status", "why")
        except Unavailable:
            return None
        return str(why) if status == "held" else None

    def _nodes(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = read.show_json(self.client.engine, self.run_id, self.generation)["nodes"]
        return nodes

    def _events(self) -> list[dict[str, Any]]:
        return [dict(event.data) for event in read.get_events(self.client.engine, self.run_id, self.generation)]

    # -- the same for asyncio ----------------------------------------------------------------------

    aview = awaitable(view)
    anodes = awaitable(_nodes)
    aevents = awaitable(_events)
    await_ = awaitable(wait, waits=True)
    aresult = awaitable(result)
    alogs = awaitable(logs)
    alog_reader = awaitable(log_reader)
    acancel = awaitable(cancel)
    areprioritise = awaitable(reprioritise)
    aextend_deadline = awaitable(extend_deadline)
    arerun = awaitable(rerun)
    aapprove = awaitable(approve)
    adecisions = awaitable(decisions)
    aexplain = awaitable(explain)


def _cause(error: Any) -> str | None:
    return f"{error.get('type', 'Error')}: {error.get('message', '')}" if isinstance(error, dict) and error else None
