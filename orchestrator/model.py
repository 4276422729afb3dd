"""The whole kernel on dictionaries: what every script of `docs/protocol.md` means, written to be read.

A hypothesis state machine holds the kernel in Redis against it, and `run_local` executes graphs on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cost.memory import Key, MemoryLedger
from tenancy.transport.memory import TAGS_MAX, Reply

OUTCOMES: Final = ("succeeded", "failed", "timed_out", "skipped", "cancelled", "upstream_failed")
LOST_MAX: Final = 3
"""A node whose workers died this often under it is poison."""


@dataclass(slots=True)
class Lease:
    """The claim of one attempt; it is live while the incarnation is, and holds the tag in this delivery."""

    attempt: int
    inc: str
    tag: str
    delivery: int
    since: int


@dataclass(slots=True)
class NodeState:
    """A node of a run: `state` is pending, due, running or its outcome.

    wait: parents that stand in its way, because they have not ended or have ended badly.
    ctl: amounts by variant ("" without one), required, attempts, next (children). claims: executions begun;
    fails, lost: how they ended; done: the last one that finished. since: when it became due.
    """

    wait: int
    ctl: dict[str, Any]
    spec: str
    verdict: str
    fragment: str
    state: str = "pending"
    claims: int = 0
    fails: int = 0
    lost: int = 0
    done: int = 0
    lease: Lease | None = None
    notbefore: int = 0
    since: int | None = None
    result: str | None = None
    fault: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in OUTCOMES

    @property
    def waits(self) -> bool:
        """Whether it has not begun (or waits for its next attempt)."""
        return self.state in ("pending", "due")

    @property
    def passes(self) -> bool:
        """Whether a node that ended does not stand in its children's way."""
        return self.state in ("succeeded", "skipped") or (not self.ctl["required"] and self.state in ("failed", "timed_out"))


@dataclass(slots=True)
class RunState:
    """A run of one generation: `status` is loading, running, cancelling or ended; `left` counts nodes without an outcome."""

    run: str
    gen: int
    tenant: str
    graph: str
    total: int
    left: int
    estimate: int
    floor: int
    hold: int
    priority: int
    created: int
    progress: int
    status: str = "loading"
    outcome: str = ""
    reason: str = ""
    degraded: bool = False
    required_failed: bool = False
    nodes: dict[str, NodeState] = field(default_factory=dict)
    fragments: dict[str, str] = field(default_factory=dict)
    cascade: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.run, self.gen

    def task_id(self, node: str) -> str:
        """The Celery task id of a node, and the once-id of its message."""
        return f"{self.run}.{self.gen}.{node}"


NodeRow = tuple[str, int, str, str, str, str]
"""id, wait, ctl JSON, spec, verdict, fragment."""


class Model(MemoryLedger):
    """Transport, money and run state in this process; one method for each script, with the same answers."""

    def __init__(self, *, server: str = "local", now_ms: int = 0) -> None:
        super().__init__(server=server, now_ms=now_ms)
        self.runs: dict[Key, RunState] = {}

    # A run from admission to its end

    def admit(self, run: str, gen: int, tenant: str, want: str) -> Reply:
        """Hold money and a place for a run, once: ["admitted", hold] or ["refused", reason, limit, current].

        want: JSON with graph, total, estimate, floor, budget ('' is none), priority; amounts as decimal strings.
        """
        self._fence()
        if (run, gen) in self.runs:
            return ["admitted", str(self.runs[run, gen].hold)]
        asked = json.loads(want)
        budget = int(asked["budget"]) if asked["budget"] else None
        answer = self._hold((run, gen), tenant, int(asked["floor"]), int(asked["estimate"]), budget)
        if answer[0] != "held":
            reason, limit, current = answer
            self._append("run.refused", tenant=tenant, run=run, gen=gen, reason=reason, limit=limit, current=current)
            return ["refused", reason, limit, current]
        self.runs[run, gen] = RunState(
            run,
            gen,
            tenant,
            asked["graph"],
            total=int(asked["total"]),
            left=int(asked["total"]),
            estimate=int(asked["estimate"]),
            floor=int(asked["floor"]),
            hold=int(answer[1]),
            priority=int(asked["priority"]),
            created=self.now_ms,
            progress=self.now_ms,
        )
        self._run_event(
            self.runs[run, gen],
            "run.admitted",
            graph=asked["graph"],
            total=int(asked["total"]),
            estimate=asked["estimate"],
            floor=asked["floor"],
            hold=answer[1],
            budget=asked["budget"],
        )
        return ["admitted", answer[1]]

    def load(self, run: str, gen: int, nodes: Sequence[NodeRow], fragments: Mapping[str, str]) -> int:
        """Take in nodes and fragments of an admitted run; what is known already stays as it is.

        A run that was cancelled while it was loaded is loaded to its end: each of its nodes gets an outcome.
        """
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status not in ("loading", "cancelling"):
            return 0
        for node, wait, ctl, spec, verdict, fragment in nodes:
            if node not in state.nodes:
                state.nodes[node] = NodeState(wait, json.loads(ctl), spec, verdict, fragment)
        state.fragments.update(fragments)
        return len(nodes)

    def launch(self, run: str, gen: int, degraded: int, last: int, roots: Sequence[str]) -> list[str]:
        """Make roots due, and with the last piece of them start a loaded run, once; returns those that are due."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status in ("ended", "cancelling"):
            return []
        if state.status == "loading" and last:
            state.status = "running"
            state.degraded = state.degraded or bool(degraded)
            self._run_event(state, "run.started", degraded=bool(degraded))
        ready = [id_ for id_ in roots if id_ in state.nodes and state.nodes[id_].state == "pending" and state.nodes[id_].wait == 0]
        self._make_due(state, ready)
        state.progress = self.now_ms
        self._maybe_end(state)
        return [id_ for id_ in roots if id_ in state.nodes and state.nodes[id_].state == "due"]

    def cancel(self, run: str, gen: int, reason: str, by: str) -> int:
        """Set the fence of a run: nothing of it begins from here on. Its nodes get their outcomes by `revoke`."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status == "ended":
            return 0
        if state.status != "cancelling":
            state.status, state.reason = "cancelling", reason
            self._run_event(state, "run.cancelling", reason=reason, by=by)
            self._maybe_end(state)
        return 1

    # A node from its message to its outcome

    def begin(self, run: str, gen: int, node: str, inc: str, tag: str, delivery: int, worker: str) -> Reply:
        """The gate: claim a node for the execution that a delivered message asks for; a row of the gate table."""
        self._fence()
        if not self._holds(inc, tag, delivery):
            return ["gone"]
        state = self.runs.get((run, gen))
        if state is None or node not in state.nodes:
            return ["none"]
        it = state.nodes[node]
        if it.ended:
            return ["ended", it.state, it.fault or "", self._due_children(state, node)]
        if it.lease is not None and self._live(it.lease):
            if (it.lease.inc, it.lease.tag, it.lease.delivery) == (inc, tag, delivery):
                return ["run", it.lease.attempt, it.spec, it.verdict, it.fails]
            self._node_event(state, node, "node.duplicate", attempt=it.lease.attempt, inc=inc, tag=tag)
            return ["held"]
        if state.status == "cancelling":
            self._close_lost(state, node)
            self._end_node(state, node, "cancelled", reason=state.reason)
            self._maybe_end(state)
            return ["stopped"]
        if state.status != "running" or it.wait > 0:
            self._let_go(inc, tag)
            self._drop(tag)
            return ["early"]
        if self.now_ms < it.notbefore:
            self._release(inc, tag, it.notbefore - self.now_ms)
            return ["later", it.notbefore - self.now_ms]
        self._close_lost(state, node)
        if it.lost >= LOST_MAX:
            self._let_go(inc, tag)
            if tag in self.messages:
                self._bury_letter(tag, "three workers died while they ran it")
            return self._give_up(state, node, "poison", "failed", "three workers died while they ran it")
        attempt = it.claims + 1
        amount = it.ctl["amounts"].get(it.verdict, it.ctl["amounts"][""])
        if not self._reserve(state.key, node, attempt, int(amount)):
            outcome = "failed" if it.ctl["required"] else "skipped"
            return self._give_up(state, node, "refused", outcome, f"the budget does not cover its {amount} micros")
        it.claims, it.state, it.since = attempt, "running", None
        it.lease = Lease(attempt, inc, tag, delivery, self.now_ms)
        details = {"attempt": attempt, "inc": inc, "worker": worker, "amount": str(amount), "day": self.today, "verdict": it.verdict}
        self._node_event(state, node, "node.began", **details)
        state.progress = self.now_ms
        return ["run", attempt, it.spec, it.verdict, it.fails]

    def finish(
        self,
        run: str,
        gen: int,
        node: str,
        attempt: int,
        inc: str,
        outcome: str,
        result: str,
        error: str,
        cats: str,
        delay_ms: int,
    ) -> Reply:
        """End an execution: ["done", more, due nodes..], ["retry", delay_ms] or ["fenced"]; repeated, it answers the same.

        attempt: 0 is the one that `inc` holds. outcome: succeeded, failed, timed_out, or skipped (an optional node whose parent has no
        result for it; `error` is the reason). delay_ms: before another attempt; -1 is none.
        """
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or node not in state.nodes:
            return ["fenced"]
        it = state.nodes[node]
        if attempt == 0 and it.lease is not None and it.lease.inc == inc:
            attempt = it.lease.attempt
        if it.lease is None or not self._live(it.lease) or (it.lease.attempt, it.lease.inc) != (attempt, inc):
            return self._finished_before(state, node, attempt, inc)
        tag = it.lease.tag
        if outcome == "skipped" and it.ctl["required"]:
            outcome = "failed"
        it.done = attempt
        self._note_usage(state.key, node, attempt, cats)
        state.progress = self.now_ms
        if outcome == "succeeded":
            it.result = result
            self._end_node(state, node, outcome, attempt=attempt, result=result)
        elif outcome == "skipped":
            self._end_node(state, node, outcome, attempt=attempt, reason=error)
        else:
            it.fault = error
            it.fails += 1
            if it.fails < it.ctl["attempts"] and delay_ms >= 0 and state.status == "running":
                it.lease, it.state = None, "due"
                it.since = it.notbefore = self.now_ms + delay_ms
                self._node_event(state, node, "node.retry", attempt=attempt, outcome=outcome, error=error, delay_ms=delay_ms)
                self._release(inc, tag, delay_ms, demote=True)
                return ["retry", delay_ms]
            self._end_node(state, node, outcome, attempt=attempt, error=error)
        due, more = self._consequences(state, [node])
        return ["done", more, *due]

    def _finished_before(self, state: RunState, node: str, attempt: int, inc: str) -> Reply:
        """Answer a finish whose lease is over: once more if it was this attempt's own, else not at all."""
        it = state.nodes[node]
        if it.done != attempt or not attempt or inc not in self.workers or it.state in ("pending", "running"):
            return ["fenced"]
        if it.state == "due":
            return ["retry", max(0, it.notbefore - self.now_ms)]
        return ["done", int(bool(state.cascade)), *self._due_children(state, node)]

    def _give_up(self, state: RunState, node: str, row: str, outcome: str, reason: str) -> Reply:
        it = state.nodes[node]
        it.fault = json.dumps({"type": row, "message": reason})
        self._end_node(state, node, outcome, attempt=it.claims, reason=reason)
        due, _ = self._consequences(state, [node])
        return [row, outcome, reason, due]

    # Decisions about nodes that have not begun

    def skip(self, run: str, gen: int, reason: str, nodes: Sequence[str]) -> Reply:
        """Give up optional nodes that have not begun; joins let them pass. Returns [number skipped, due nodes..].

        Comes after the last `load`: a child that is loaded later would wait for what was skipped before.
        """
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status in ("ended", "cancelling"):
            return [0]
        skipped: list[str] = []
        for id_ in nodes:
            it = state.nodes.get(id_)
            if it is not None and it.waits and not it.ctl["required"]:
                self._drop_once(state.task_id(id_))
                self._end_node(state, id_, "skipped", reason=reason)
                skipped.append(id_)
        due = [child for id_ in skipped for child in self._propagate(state, id_, passes=True)]
        self._make_due(state, due)
        state.progress = self.now_ms
        self._maybe_end(state)
        return [len(skipped), *due]

    def revoke(self, run: str, gen: int, outcome: str, reason: str, nodes: Sequence[str]) -> Reply:
        """Give nodes that have not begun, or whose worker is gone, an outcome: [number, more]. Their messages go."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status == "ended":
            return [0, 0]
        revoked = 0
        for id_ in nodes:
            it = state.nodes.get(id_)
            if it is None or it.ended or (it.lease is not None and self._live(it.lease)):
                continue
            self._close_lost(state, id_)
            self._drop_once(state.task_id(id_))
            self._end_node(state, id_, outcome, reason=reason)
            self._propagate(state, id_, passes=False)
            revoked += 1
        _, more = self._consequences(state, [])
        return [revoked, more]

    def cascade(self, run: str, gen: int, limit: int) -> int:
        """Go on writing the fate of descendants; returns 1 when there are more."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status == "ended":
            return 0
        more = self._cascade(state, limit)
        self._maybe_end(state)
        return more

    def stale(self, run: str, gen: int, age_ms: int, nodes: Sequence[str]) -> list[str]:
        """Return which of the nodes should have a message or a live lease and have neither: to be published."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status != "running":
            return []
        publish: list[str] = []
        orphaned: list[str] = []
        for id_ in nodes:
            it = state.nodes.get(id_)
            if it is None or self._outstanding(state.task_id(id_)):
                continue
            if it.lease is not None and not self._live(it.lease):
                self._close_lost(state, id_)
                it.state = "pending"
                orphaned.append(id_)
                publish.append(id_)
            elif it.since is not None and it.since <= self.now_ms - age_ms:
                publish.append(id_)
        self._make_due(state, orphaned)
        return publish

    # Money scripts

    def settle(self, run: str, gen: int, node: str, attempt: int, cats: str, by: str) -> str:
        """Charge an execution, once: settled, same, conflict, waste (it was void before) or unknown. May end the run."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None:
            return "unknown"
        answer = self._settle(state.key, node, attempt, cats, by, unfinished=state.left > 0)
        self._maybe_end(state)
        return answer

    def void(self, run: str, gen: int, node: str, attempt: int, by: str) -> str:
        """Give an execution's reservation back: void, same, conflict (it was charged) or unknown. May end the run."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None:
            return "unknown"
        answer = self._void(state.key, node, attempt, by, unfinished=state.left > 0)
        self._maybe_end(state)
        return answer

    # What these are made of

    def _run_event(self, state: RunState, type_: str, **fields: object) -> None:
        self._append(type_, tenant=state.tenant, run=state.run, gen=state.gen, **fields)

    def _node_event(self, state: RunState, node: str, type_: str, **fields: object) -> None:
        self._run_event(state, type_, node=node, **fields)

    def _live(self, lease: Lease) -> bool:
        return self._holds(lease.inc, lease.tag, lease.delivery)

    def _due_children(self, state: RunState, node: str) -> list[str]:
        """Children that are due and not begun: what a repeated reply names again."""
        return [child for child in state.nodes[node].ctl["next"] if state.nodes[child].state == "due"]

    def _make_due(self, state: RunState, nodes: Sequence[str]) -> None:
        for id_ in nodes:
            state.nodes[id_].state, state.nodes[id_].since = "due", self.now_ms
        for first in range(0, len(nodes), TAGS_MAX):
            self._run_event(state, "node.due", nodes=list(nodes[first : first + TAGS_MAX]))

    def _end_node(self, state: RunState, node: str, outcome: str, **fields: object) -> None:
        """The one place where a node gets its outcome."""
        it = state.nodes[node]
        assert not it.ended, f"{node} has the outcome {it.state} and cannot get {outcome}"
        it.state, it.lease, it.since = outcome, None, None
        state.left -= 1
        state.counts[outcome] = state.counts.get(outcome, 0) + 1
        if outcome != "succeeded":
            if it.ctl["required"]:
                state.required_failed = True
            else:
                state.degraded = True
        self._node_event(state, node, "node.ended", outcome=outcome, **fields)

    def _consequences(self, state: RunState, ended: Iterable[str]) -> tuple[list[str], int]:
        """Write what follows from nodes that just ended; returns the nodes that became due, and whether there is more."""
        due: list[str] = []
        for id_ in ended:
            due += self._propagate(state, id_, passes=state.nodes[id_].passes)
        more = self._cascade(state, TAGS_MAX)
        self._make_due(state, due)
        self._maybe_end(state)
        return due, more

    def _propagate(self, state: RunState, node: str, *, passes: bool) -> list[str]:
        """Count down the children of a node that ended, or seal their fate; returns those that became ready."""
        if state.status == "cancelling":
            return []
        children = state.nodes[node].ctl["next"]
        if not passes:
            state.cascade.extend(children)
            return []
        for child in children:
            state.nodes[child].wait -= 1
        return [child for child in children if state.nodes[child].wait == 0 and state.nodes[child].state == "pending"]

    def _cascade(self, state: RunState, limit: int) -> int:
        for _ in range(limit):
            if not state.cascade:
                return 0
            node = state.cascade.pop(0)
            if state.nodes[node].waits:
                self._drop_once(state.task_id(node))
                self._end_node(state, node, "upstream_failed", reason="a required node before it did not succeed")
                self._propagate(state, node, passes=False)
        return int(bool(state.cascade))

    def _close_lost(self, state: RunState, node: str) -> None:
        """End the lease of an execution whose worker is gone, if there is one: its money returns."""
        it = state.nodes[node]
        if it.lease is None:
            return
        attempt, inc, it.lease = it.lease.attempt, it.lease.inc, None
        it.lost += 1
        self._node_event(state, node, "node.lost", attempt=attempt, inc=inc)
        self._void(state.key, node, attempt, "lost", unfinished=True)

    def _maybe_end(self, state: RunState) -> None:
        """A run ends when no node is left and no execution is open."""
        if state.left or self.purses[state.key].open or state.status not in ("running", "cancelling"):
            return
        if state.status == "cancelling":
            state.outcome = "cancelled"
        elif state.required_failed:
            state.outcome = "failed"
        else:
            state.outcome = "degraded" if state.degraded else "succeeded"
        state.status = "ended"
        self._release_hold(state.key)
        spent = str(self.purses[state.key].spent)
        self._run_event(state, "run.ended", outcome=state.outcome, cost=spent, counts=dict(state.counts))

    # Promises

    def check(self) -> None:
        """Assert what must hold between any two calls."""
        super().check()
        ended: dict[str, str] = {}
        for event in self.events:
            if event["t"] == "node.ended":
                task_id = f"{event['run']}.{event['gen']}.{event['node']}"
                assert task_id not in ended, f"{task_id} ended as {ended[task_id]} and as {event['outcome']}"
                ended[task_id] = event["outcome"]
        for state in self.runs.values():
            self._check_run(state, ended)
        for tenant, account in self.accounts.items():
            live = sum(state.status != "ended" for state in self.runs.values() if state.tenant == tenant)
            assert account.running == live, f"{tenant} runs {live} and counts {account.running}"

    def _check_run(self, state: RunState, ended: Mapping[str, str]) -> None:
        outcomes = {id_: it.state for id_, it in state.nodes.items() if it.ended}
        assert state.left == state.total - len(outcomes), state.key
        assert sum(state.counts.values()) == len(outcomes), state.key
        for id_, it in state.nodes.items():
            place = state.task_id(id_)
            assert ended.get(place) == outcomes.get(id_), f"{place} is {it.state}, the log says {ended.get(place)}"
            assert (it.lease is not None) == (it.state == "running"), place
            assert (it.since is not None) == (it.state == "due"), place
            assert it.lease is None or it.lease.attempt == it.claims, place
            assert it.claims >= it.fails + it.lost, place
            for attempt in range(1, it.claims + 1):
                assert (id_, attempt) in self.reservations[state.key], f"{place} began without a reservation"
        purse = self.purses[state.key]
        if state.status == "ended":
            assert (state.left, purse.open, purse.hold, purse.reserved) == (0, 0, 0, 0), state.key
        elif state.status in ("running", "loading"):
            self._check_joins(state)

    def _check_joins(self, state: RunState) -> None:
        in_the_way = dict.fromkeys(state.nodes, 0)
        for it in state.nodes.values():
            for child in it.ctl["next"]:
                if child in in_the_way and not (it.ended and it.passes):
                    in_the_way[child] += 1
        for id_, it in state.nodes.items():
            assert it.wait == in_the_way[id_], f"{id_} waits for {it.wait}, {in_the_way[id_]} stand in its way"
            assert it.wait == 0 or it.state not in ("due", "running", "succeeded"), f"{id_} is {it.state} before its parents ended"
