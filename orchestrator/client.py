"""The producer's client: submit graphs, hold on to their runs."""

from __future__ import annotations

import contextlib
import getpass
import json
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ulid import ULID

from cost.estimate import DEFAULT, Means
from cost.money import check_micros, parse_units
from orchestrator.approval import Approved, approve, approve_each, to_approve, waiting
from orchestrator.awaiting import awaitable, iterable
from orchestrator.cancellation import KILL_S, Cancellation
from orchestrator.deadlines import Extended, extend
from orchestrator.explain import Step, explain
from orchestrator.generations import What, rerun
from orchestrator.graph import Graph
from orchestrator.graph.limits import Limits
from orchestrator.graph.scheduled import refuse_unscheduled
from orchestrator.handle import RunHandle
from orchestrator.ledger import Ledger
from orchestrator.logs.reading import NodeLogs, node_logs
from orchestrator.pauses import pause, resume
from orchestrator.price_tables import PriceTables
from orchestrator.ranks import reprioritise
from orchestrator.recorder.ask import answer_to, append_request
from orchestrator.refusal import no_tenant, turned_away
from orchestrator.registry import registry
from orchestrator.schedules.backfill import Backfill, Backfilled
from orchestrator.schedules.book import Schedules, terms_of
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store.decisions import DecisionView, list_decisions
from orchestrator.store.engine import open_engine
from orchestrator.store.learned import learned_means, run_terms
from orchestrator.submission import Submission
from orchestrator.tenants import Tenants
from orchestrator.trace.identity import parse_traceparent
from orchestrator.trace.nesting import current_traceparent
from tenancy import keys
from tenancy.errors import Conflict, Refused, Unavailable
from tenancy.priorities import Priority

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestrator.kernel import Kernel

GENERATION = 1


class Client:
    """Submits graphs and reads runs; settings come from the environment (`HEADGATE_*`), or are given.

    Safe to use from several threads. Making one connects to nothing; the first call does, and raises Unavailable when no stack runs.
    `asubmit` and the others with an `a` before their name are the same calls for asyncio ([awaiting](awaiting.py)); so are those of
    `tenants`, `prices`, `ledger` and `schedules`, as `client.tenants.ausage`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.load()
        self._making = threading.RLock()

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel that this client submits to."""
        from orchestrator.assembly import producer_app
        from orchestrator.loading import load_tasks

        with self._making:  # many threads may come first, and one kernel is made
            if "kernel" not in self.__dict__:
                load_tasks(self.settings.tasks)  # their definitions say what a node costs that does not say so itself
                self.__dict__["kernel"] = producer_app(self.settings).headgate_kernel
            found: Kernel = self.__dict__["kernel"]
            return found

    @cached_property
    def engine(self) -> Engine:
        """The record that this client reads."""
        return open_engine(self.settings.resolved_database_url())

    @cached_property
    def tenants(self) -> Tenants:
        """The tenants: create, get, list, update, suspend, resume, close, fork, usage."""
        return Tenants(self)

    @cached_property
    def node_logs(self) -> NodeLogs:
        """The logs of nodes, as `RunHandle.logs` reads them; also where no stack runs."""
        return node_logs(self.settings)

    @cached_property
    def prices(self) -> PriceTables:
        """The price tables: list, get, in_force, set, reset."""
        return PriceTables(self)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger: adjust, entries, reprice."""
        return Ledger(self)

    @cached_property
    def schedules(self) -> Schedules:
        """The schedules: create, list, show, graph, ticks, set, pause, resume, delete."""
        return Schedules(self)

    def submit(
        self,
        graph: Graph,
        *,
        tenant: str = "default",
        priority: Priority | str | None = None,
        key: str | None = None,
        budget: str | int | None = None,
        max_parallel: int | None = None,
        quality: Literal["best", "full"] = "best",
        traceparent: str | None = None,
    ) -> RunHandle:
        """Submit a graph and return its run; once this returns it is on record and will run, whatever dies.

        Where its tenant's runs, the pools or the workers leave no room yet, the run is `held` and starts in its turn.

        :param tenant: id of the tenant that pays.
        :param priority: order among the tenant's work; its policy's unless said.
        :param key: makes the submission idempotent: the same key and graph give the same run.
        :param budget: the most that the run may cost: units as text ("0.06") or whole micros.
        :param quality: "full" has the run refused, or wait, where "best" would have it planned down to what the budget leaves.
        :param max_parallel: how many of its nodes may be in workers' hands at once, instead of what the graph says.
        :param traceparent: the span that the run's spans belong to, as W3C writes it; OpenTelemetry's current one unless said.

        Raises GraphInvalid, BudgetRefused, RunsLimit (the tenant's policy rejects what it would have to hold), QueueFull (too many of its
        runs wait), Rate (it submits too fast), Refused, Conflict (the key was used for another graph) and Unavailable; then nothing has
        been published. Limits say what they are and when to try again. After Unavailable, submit again with the same key.
        """
        if quality not in ("best", "full"):
            raise ValueError(f"quality is 'best' or 'full', not {quality!r}")
        trace = current_traceparent() if traceparent is None else parse_traceparent(traceparent).traceparent
        budget_micros = _micros(budget)
        served = self._served()
        if max_parallel is not None:
            graph = graph.evolve(max_parallel=max_parallel)
        resolved = graph.resolved(registry)
        self.check(resolved, served)
        refuse_unscheduled(resolved)
        self._knock(tenant, key)
        self._await_service(resolved, served)
        level = self.tenants.default_priority(tenant) if priority is None else Priority.parse(priority)
        strict = self.tenants.is_strict(tenant)
        submission = Submission.of(resolved, self.settings, level, self._learned(resolved, tenant), strict=strict, full=quality == "full")
        if strict and (silent := submission.without_max_cost()):
            raise Refused(f"tenant {tenant!r} is strict: each node says its most by `max_cost`, and these do not: {_listed(silent)}")
        since_ms = self.kernel.link.now_ms()
        run_id = self._store(submission, tenant, key, budget_micros, trace)
        if key is not None:  # it may be an earlier run, which goes on costing what it did
            earlier = self.run(run_id)
            if earlier.generation > GENERATION or earlier.status not in ("submitted", "held"):
                return earlier
            found = run_terms(self.engine, run_id, GENERATION)
            submission = submission.relearned(found.learned, strict=found.strict, full=found.full)
        # On record by now, so it will run: where Redis went away meanwhile, the sweeper completes the submission.
        with contextlib.suppress(Unavailable):
            self.kernel.launcher.start(run_id, GENERATION, tenant, submission, budget_micros, since_ms)
        return RunHandle(self, run_id, GENERATION)

    def run(self, run_id: str) -> RunHandle:
        """Return the handle of an earlier run. Raises Unknown."""
        return RunHandle(self, run_id, read.get_run(self.engine, run_id).generation)

    def cancel(
        self,
        run_id: str,
        nodes: str | Sequence[str] | None = None,
        *,
        below: bool = False,
        now: bool = False,
        reason: str = "cancelled by its producer",
        by: str | None = None,
    ) -> bool:
        """Cancel a run, or some of its nodes; once this returns nothing of that begins, whatever restarts. False when all had ended before.

        What runs is told through `meter.cancelled()`. A cancelled node is `cancelled` whatever it returns, and what needs it is
        upstream_failed; what runs of a cancelled run has the outcome of what it does.

        :param nodes: cancel these, and not the run.
        :param below: also what only they feed.
        :param now: end the processes that run them (prefork pools; elsewhere they finish by themselves).

        Raises Unknown (no such run or node), Refused (nodes of a run that is over or waits to be started) and Unavailable.
        """
        generation = self.run(run_id).generation
        cancellation, who = Cancellation(self.kernel, self.engine), by or getpass.getuser()
        named = None if nodes is None else [nodes] if isinstance(nodes, str) else list(nodes)
        if named is None:
            if below:
                raise ValueError("below=True is for nodes; a run is cancelled as a whole")
            done = cancellation.run(run_id, generation, reason, who)
        else:
            found = cancellation.nodes(run_id, generation, named, reason, who, below=below)
            done = bool(found.cancelled or found.told)
        if now and done:
            cancellation.kill(run_id, generation, named, reason, KILL_S, below=below)
        return done

    def cancel_all(self, scope: str, *, now: bool = False, reason: str = "", by: str | None = None) -> list[str]:
        """Cancel every run of `platform` or `tenant:{id}` that was submitted so far; return their ids. Nothing of them begins after this.

        Runs that are submitted later run. Raises Unknown and Unavailable.
        """
        cancellation = Cancellation(self.kernel, self.engine)
        runs = cancellation.scope(scope, reason, by or getpass.getuser())
        if now:
            for run_id, generation in runs:
                cancellation.kill(run_id, generation, None, reason, KILL_S)
        return [run_id for run_id, _ in runs]

    def reprioritise(self, run_id: str, priority: Priority | str, *, reason: str = "", by: str | None = None) -> bool:
        """Give all of a run in flight this priority: what waits in line, and what comes later; False when it had it before.

        Raises Unknown, Refused (it is over, or not admitted yet) and Unavailable.
        """
        generation = self.run(run_id).generation
        return reprioritise(self.kernel, run_id, generation, Priority.parse(priority), reason, by or getpass.getuser())

    def extend_deadline(self, run_id: str, timeout_s: int, node: str | None = None, *, reason: str = "", by: str | None = None) -> Extended:
        """Give the nodes of a run in flight, or one of them, more time: `timeout_s` seconds each. On record when this returns.

        What has not begun has it, also in attempts to come, whatever is restarted; what runs has it where its worker's pool can give it
        (prefork), and the answer names what keeps the limit it began with. Nodes with a longer timeout keep theirs.

        Raises Unknown, Refused (the run or node is over, not admitted yet, or no node has a shorter timeout), ValueError and Unavailable.
        """
        generation = self.run(run_id).generation
        return extend(self.kernel, self.engine, run_id, generation, timeout_s, node, reason, by or getpass.getuser())

    def rerun(
        self,
        run_id: str,
        nodes: str | Sequence[str] | None = None,
        what: What = "failed",
        *,
        budget: str | int | None = None,
        reason: str = "",
        by: str | None = None,
    ) -> RunHandle:
        """Open the next generation of a run that has ended, and return it; once this returns it is on record and will run.

        It adopts what succeeded: such a node is not run again, costs nothing, and its consumers receive the result it had. Only where a
        large result was collected meanwhile, and a node that runs takes it or nothing follows it, its node runs again.

        :param what: "failed" runs what has no success; "from" also `nodes` and all that depends on them; "node" also `nodes`, and
            nothing that depends on them.
        :param budget: the most that this generation may cost; as much as the one before might, unless said.

        Raises Unknown (no such run or node), Refused (it is not over, has nothing to run again, was terminated by cost, or its tenant is
        suspended), BudgetRefused, RunsLimit, QueueFull and Unavailable.
        """
        if what not in ("failed", "from", "node"):
            raise ValueError(f"what is 'failed', 'from' or 'node', not {what!r}")
        named = [nodes] if isinstance(nodes, str) else list(nodes or ())
        if (what == "failed") == bool(named):
            raise ValueError("name nodes for what='from' and what='node', and none for what='failed'")
        generation = rerun(self.kernel, self.engine, run_id, what, named, _micros(budget), reason, by or getpass.getuser())
        return RunHandle(self, run_id, generation)

    def approve(self, run_id: str, *, budget: str | int | None = None, reason: str, by: str | None = None) -> RunHandle:
        """Let a run go on that was terminated by its cost, or is held for approval; return the generation that does, on record by then.

        What was terminated goes on in its next generation, which adopts what succeeded and runs what was revoked; what is held goes on
        itself. Approving it again returns the same.

        :param budget: the most that this generation may cost, as much as the one before might unless said; of a held run it is only raised.

        Raises Unknown, Refused (there is nothing to approve, or no reason was given), BudgetRefused, RunsLimit, QueueFull and Unavailable.
        """
        generation = to_approve(self.engine, self.run(run_id).run_id)
        opened = approve(self.kernel, self.engine, run_id, generation, _micros(budget), reason, by or getpass.getuser())
        return RunHandle(self, run_id, opened)

    def approve_all(self, tenant: str, *, since: float | None = None, reason: str, by: str | None = None) -> list[Approved]:
        """Approve every run of a tenant that waits for it since then (epoch seconds); again it finds only what came to wait meanwhile.

        Each answer has the generation that goes on, or says why none does. Raises Unknown, Refused without a reason, and Unavailable.
        """
        if not reason.strip():
            raise Refused("an approval needs a reason; say why the runs may go on")
        found = waiting(self.engine, tenant=read.get_tenant(self.engine, tenant).id, since=since)
        return approve_each(self.kernel, self.engine, found, reason, by or getpass.getuser())

    def decisions(
        self,
        *,
        run: str | None = None,
        generation: int | None = None,
        tenant: str | None = None,
        since: float | None = None,
        observed: bool | None = None,
        limit: int = read.LIMIT_MAX,
    ) -> list[DecisionView]:
        """Return the newest decisions of the cost agent that fit all of the filters, oldest first.

        since: epoch seconds. observed: only those that touched nothing by the tenant's policy, or only the others. Raises Unavailable.
        """
        return list_decisions(self.engine, run=run, generation=generation, tenant=tenant, since=since, observed=observed, limit=limit)

    def explain(self, run_id: str, node: str | None = None, *, generation: int | None = None) -> list[Step]:
        """Walk back from what a node, or without one the run, has come to: outcome, decision, what tripped it, the charge behind that.

        generation: the newest unless said. Raises Unknown and Unavailable.
        """
        return explain(self.engine, run_id, node, generation)

    def pause(self, scope: str, *, reason: str = "", by: str | None = None) -> bool:
        """Begin nothing of `platform`, `tenant:{id}` or `run:{id}` until it is resumed; False when it was paused before.

        `agent` is the cost agent: it decides nothing then.

        Holds at once, also for what is queued, and is on record when this returns, so it survives a restart of everything. What runs
        goes on. Raises Unknown, Unavailable, and Refused for a run that is over.
        """
        return pause(self.kernel.link, self.engine, scope, reason, by or getpass.getuser())

    def resume(self, scope: str, *, reason: str = "", by: str | None = None) -> bool:
        """End a pause; what waited goes on in its order. False when there was none.

        Raises Unknown, Unavailable, and Refused for a run that is held for what it costs: that goes on by `approve` alone.
        """
        return resume(self.kernel.link, self.engine, scope, reason, by or getpass.getuser())

    def backfill(
        self,
        what: Graph | str,
        since: datetime | date | str,
        until: datetime | date | str,
        *,
        tenant: str = "default",
        concurrency: int = 1,
        cron: str | None = None,
        every_s: int | None = None,
        timezone: str = "UTC",
        budget: str | int | None = None,
        priority: Priority | str | None = None,
        reason: str = "",
        by: str | None = None,
    ) -> Iterator[Backfilled]:
        """Run a schedule, by its name, or a graph for each time from `since` on and before `until`; yield each as its run ends.

        A time that has a run is not run again, so what was interrupted goes on when it is asked for again. A schedule has its own times,
        budget and priority; for a graph `cron` or `every_s` say the times. concurrency: runs that may be live at once, 1 to 1,000.
        Raises Unknown, Refused for what does not fit or while another process is at the same backfill, and as `submit`.
        """
        if isinstance(what, str):
            terms = self.schedules.show(what, tenant=tenant).terms
            graph, schedule = self.schedules.graph(what, tenant=tenant), what
        else:
            terms = terms_of(cron=cron, every_s=every_s, timezone=timezone, budget=budget, priority=priority)
            graph, schedule = what, None
        return Backfill(
            self, graph, terms, since, until, tenant=tenant, schedule=schedule, concurrency=concurrency, by=by, reason=reason
        ).run()

    def check(self, graph: Graph, served: Collection[str] | None = None) -> None:
        """Raise GraphInvalid with all that keeps a graph from being submitted. served: names of tasks, if they were asked for already."""
        known = [*(self._served() if served is None else served), *registry.names()]
        graph.check(registry=registry, served=known, limits=self._limits())

    # -- the same for asyncio: one implementation, in threads -------------------------------------

    asubmit = awaitable(submit)
    arun = awaitable(run)
    acancel = awaitable(cancel)
    acancel_all = awaitable(cancel_all)
    areprioritise = awaitable(reprioritise)
    aextend_deadline = awaitable(extend_deadline)
    arerun = awaitable(rerun)
    aapprove = awaitable(approve)
    aapprove_all = awaitable(approve_all)
    adecisions = awaitable(decisions)
    aexplain = awaitable(explain)
    apause = awaitable(pause)
    aresume = awaitable(resume)
    acheck = awaitable(check)
    abackfill = iterable(backfill)

    # -- steps of a submission ------------------------------------------------------------------

    def _limits(self) -> Limits:
        s = self.settings
        return Limits(nodes=s.max_nodes, edges=s.max_edges, bytes_max=s.max_graph_bytes, params_bytes=s.max_params_bytes)

    def _served(self) -> set[str]:
        return set(self.kernel.link.read("HKEYS", keys.SERVES))

    def _knock(self, tenant: str, key: str | None) -> None:
        """Turn a flood away before it leaves anything behind; a key that has its run already is no new submission."""
        if key is not None and any(run.status != "refused" for run in read.list_runs(self.engine, tenant=tenant, key=key)):
            return
        reply = self.kernel.state.knock(tenant)
        if reply[0] != "ok":
            raise turned_away(tenant, *reply)

    def _await_service(self, graph: Graph, served: Collection[str]) -> None:
        """Give workers that are just starting a moment; a run that nobody serves by then waits on record."""
        until = time.monotonic() + self.settings.worker_wait_s
        wanted = graph.tasks()
        while not wanted <= set(served) and time.monotonic() <= until:
            time.sleep(0.05)
            served = self._served()

    def _learned(self, graph: Graph, tenant: str) -> Means:
        """Return what the tasks of nodes that declare nothing cost the tenant lately."""
        silent = {node.task for node in graph.nodes if dict(node.estimate) == DEFAULT}
        with contextlib.suppress(Unavailable):  # without the record there is no submission either, and it says so
            return learned_means(self.engine, tenant, silent)
        return {}

    def _store(self, submission: Submission, tenant: str, key: str | None, budget_micros: int | None, trace: str | None = None) -> str:
        """Put the submission on record; return its run, or the first one with the same key."""
        run_id = str(ULID()).lower()
        request = append_request(
            self.kernel.link,
            "request.submit",
            {
                "run": run_id,
                "gen": GENERATION,
                "tenant": tenant,
                "key": key,
                "digest": submission.graph.digest,
                "graph": submission.graph.name,
                "budget": budget_micros,
                "priority": int(submission.priority),
                "labels": dict(submission.graph.labels),
                "learned": json.dumps(submission.learned) if submission.learned else "",
                "strict": int(submission.strict),
                "full": int(submission.full),
                **({"trace": trace} if trace else {}),
            },
            payload=submission.graph.canonical(),
        )
        answer = answer_to(self.kernel.link, request)
        status = answer["status"]
        if status == "conflict":
            raise Conflict(f"the key {key!r} of tenant {tenant!r} belongs to run {answer['run']} of another graph; use another key")
        if status == "unknown_tenant":
            raise Refused(no_tenant(tenant))
        if status == "suspended":
            raise Refused(f"tenant {tenant!r} is {answer.get('standing', 'suspended')} and takes no new runs")
        if status not in ("accepted", "duplicate"):
            raise Unavailable(f"the submission was not stored ({status}); submit it again")
        return str(answer["run"])


def _micros(budget: str | int | None) -> int | None:
    return parse_units(budget) if isinstance(budget, str) else None if budget is None else check_micros(budget)


def _listed(nodes: Sequence[str], most: int = 5) -> str:
    more = f" and {len(nodes) - most} more" if len(nodes) > most else ""
    return ", ".join(nodes[:most]) + more
