"""The whole kernel on dictionaries: what every script of `docs/protocol.md` means, written to be read.

A hypothesis state machine holds the kernel in Redis against it, and `run_local` executes graphs on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from cost.memory import Short
from orchestrator.graph.condition import holds
from orchestrator.joins import NOT_TAKEN
from orchestrator.model_admission import AdmissionModel
from orchestrator.model_run import Lease, NodeState, Rule, RunState
from tenancy.transport.memory import TAGS_MAX, Reply

__all__ = ["Model", "NodeRow", "NodeState", "RunState"]

LOST_MAX: Final = 3
"""A node whose workers died this often under it is poison."""

SHORT_MS: Final = 1_000
"""How long a node waits that is not covered now, while what runs of its run may give enough back."""

BEHIND_MS: Final = 2_000
"""How long a node waits while the record is too far behind."""


BACK_MS: Final = 500
BACK_MS_MAX: Final = 5_000
"""How long a message is put off that a worker handed back, at least and at most."""

NAMED_MAX: Final = 5
"""Workers that are named where none has a task."""

NodeRow = tuple[str, int, str, str, str, str]
"""id, wait, ctl JSON, spec, verdict, fragment; of a row of `expand` the fragment may be the text of its own."""

AdoptRow = tuple[str, int, str, str]
"""id, generation that ran it, result, verdict."""


class Model(AdmissionModel):
    """Transport, money and run state in this process; one method for each script, with the same answers."""

    recorded: tuple[int, int] | None = None
    """The last event on record, as (epoch, sequence); None where nobody records."""
    recorded_ms: int = 0

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

    def adopt(self, run: str, gen: int, rows: Sequence[AdoptRow]) -> int:
        """Take over what an earlier generation has done, children before their parents; returns how many nodes were not yet."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status not in ("loading", "cancelling"):
            return 0
        adopted: dict[str, int] = {}
        for node, generation, result, verdict in rows:
            it = state.nodes.get(node)
            if it is None:
                state.adopts[node] = generation, result, verdict
            if it is None or not it.waits:
                continue
            self._drop_once(state.task_id(node))
            it.result, it.verdict, it.adopted = result, verdict, generation
            self._write_outcome(state, node, "succeeded")
            adopted[node] = generation
        if adopted:
            self._run_event(state, "node.adopted", nodes=adopted)
            self._consequences(state, [child for node in adopted for child in self._propagate(state, node)])
        return len(adopted)

    def launch(self, run: str, gen: int, degraded: int, last: int, roots: Sequence[str]) -> list[str]:
        """Make roots due, and with the last piece of them start a loaded run, once; returns those that are due."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status in ("ended", "cancelling", "held"):
            return []
        if state.status == "loading" and last:
            state.status, state.roots = "running", {}
            self._run_event(state, "run.started", degraded=bool(degraded))
        ready = [id_ for id_ in roots if id_ in state.nodes and state.nodes[id_].state == "pending" and state.nodes[id_].wait == 0]
        for id_ in ready:
            self._make_due(state, id_)
        self._announce(state, ready)
        state.progress = self.now_ms
        self._maybe_end(state)
        return [id_ for id_ in roots if id_ in state.nodes and state.nodes[id_].state == "due"]

    # A node from its message to its outcome

    def charge_and_begin(self, charges: Sequence[tuple[str, int, str, str, str]], run: str, gen: int, *claim: Any) -> Reply:
        """Settle executions of the run, each (node, attempt, cats, by, price version), then claim a node: [their answers, row]."""
        answers = [self.settle(run, gen, *charge) for charge in charges]
        return [answers, self.begin(run, gen, *claim)]

    def begin(
        self, run: str, gen: int, node: str, inc: str, tag: str, delivery: int, worker: str, lag_ms: int = 0, refusal_ms: int = 0
    ) -> Reply:
        """The gate: claim a node for the execution that a delivered message asks for; a row of the gate table.

        refusal_ms: how long one that the money does not cover waits for a decision before that is its outcome.
        """
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
                reserved = self.reservations[state.key][node, it.lease.attempt].amount
                return ["run", it.lease.attempt, it.spec, it.verdict, it.fails, str(reserved), *it.grows]
            self._node_event(state, node, "node.duplicate", attempt=it.lease.attempt, inc=inc, tag=tag)
            return ["held"]
        if state.status == "cancelling" or state.stopped:
            self._close_lost(state, node)
            self._end_node(state, node, "cancelled", reason=state.stopped or state.reason)
            self._maybe_end(state)
            return ["stopped"]
        if it.stop is not None:
            self._close_lost(state, node)
            return self._give_up(state, node, "stopped", "cancelled", it.stop)
        if over := state.ends(node):
            self._close_lost(state, node)
            return self._give_up(state, node, "stopped", "cancelled", over)
        if state.status != "running" or it.state == "pending":
            self._let_go(inc, tag)
            self._drop(tag)
            return ["early"]
        if self._is_fenced(state):
            self._release(inc, tag, SHORT_MS)
            return ["later", SHORT_MS]
        if self.now_ms < it.notbefore:
            self._release(inc, tag, it.notbefore - self.now_ms)
            return ["later", it.notbefore - self.now_ms]
        paused = self.paused & {"platform", f"tenant:{state.tenant}", f"run:{run}.{gen}"}
        if paused or self.stopped.get(state.tenant, 0) > self.now_ms:
            self._release(inc, tag)
            return ["later", 0]
        if self._is_recorder_behind(lag_ms):
            self._release(inc, tag, BEHIND_MS)
            return ["later", BEHIND_MS]
        self._close_lost(state, node)
        if it.lost >= LOST_MAX:
            self._let_go(inc, tag)
            if tag in self.messages:
                self._bury_letter(tag, "three workers died while they ran it")
            return self._give_up(state, node, "poison", "failed", "three workers died while they ran it")
        attempt = it.claims + 1
        amount = 0 if it.grows else int(it.ctl["amounts"].get(it.verdict, it.ctl["amounts"][""]))
        need = self._need(state, node)
        taken = self._reserve(state.key, node, attempt, amount, need)
        if isinstance(taken, Short):
            purse = self.purses[state.key]
            if purse.reserved and amount <= purse.hold - purse.needed + need + purse.reserved + self.room(state.tenant).free:
                # What runs now may give enough back: no outcome before that is known.
                it.notbefore = self.now_ms + SHORT_MS
                self._release(inc, tag, SHORT_MS)
                return ["later", SHORT_MS]
            if refusal_ms:
                first, it.refused = it.refused is None, self.now_ms if it.refused is None else it.refused
                if self.now_ms - it.refused < refusal_ms:
                    it.notbefore = self.now_ms + SHORT_MS
                    self._release(inc, tag, SHORT_MS)
                    return ["later", SHORT_MS, int(first)]
            outcome = "failed" if it.ctl["required"] else "skipped"
            return self._give_up(state, node, "refused", outcome, f"the budget does not cover its {amount} micros")
        it.claims, it.state, it.since, it.refused = attempt, "running", None, None
        it.lease = Lease(attempt, inc, tag, delivery, self.now_ms)
        details = {
            "attempt": attempt,
            "inc": inc,
            "worker": worker,
            "amount": str(amount),
            "to_hold": str(-taken),
            "day": self.today,
            "verdict": it.verdict,
        }
        self._node_event(state, node, "node.began", **details)
        state.progress = self.now_ms
        return ["run", attempt, it.spec, it.verdict, it.fails, str(amount), *it.grows]

    def expand(
        self,
        run: str,
        gen: int,
        node: str,
        attempt: int,
        inc: str,
        told: Mapping[str, Any],
        first: int,
        rows: Sequence[NodeRow],
        fragments: Mapping[str, str],
        cats: str = "",
    ) -> Reply:
        """Bring a piece of the nodes that a node becomes, in their order and children before their parents.

        ["more", 0, due nodes of the piece..], ["done", unwritten, due nodes..] with the last piece, ["stopped", unwritten, due nodes..]
        where the run or the node was cancelled meanwhile, ["clash", id] or ["fenced"]. told: rule, gathers, of, source, optional.
        """
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or node not in state.nodes:
            return ["fenced"]
        it, ids = state.nodes[node], [row[0] for row in rows]
        made = -1 if it.made is None else it.made
        if it.lease is None or not self._live(it.lease) or (it.lease.attempt, it.lease.inc) != (attempt, inc):
            if it.done != attempt or not attempt or inc not in self.workers:
                return ["fenced"]
            if made >= told["of"]:
                return ["done", self._unwritten(state), *self._still_due(state, ids)]
            return ["stopped", self._unwritten(state)] if it.ended else ["fenced"]
        tag = it.lease.tag
        over = it.stop or state.ends(node)
        if over or state.status != "running" or state.stopped:
            self._hand_over(state, node, attempt, inc, tag, cats)
            reason = over or state.stopped or state.reason
            self._end_node(state, node, "cancelled", attempt=attempt, reason=reason, **_named(state.terminated))
            due = self._propagate(state, node)
            return ["stopped", self._consequences(state, due), *self._still_due(state, due)]
        fresh = rows[max(0, made) - first :]
        if clash := next((row[0] for row in fresh if row[0] in state.nodes), None):
            return ["clash", clash]
        if it.made is None:
            state.planned -= int(it.ctl.get("expects", 0))
            self.purses[state.key].needed -= int(it.ctl.get("expects", 0))
            it.ctl = {name: said for name, said in it.ctl.items() if name not in ("expects", "map", "when", "least")}
            it.ctl |= {"floor": "0", **{name: told[name] for name in ("rule", "gathers", "of", "source") if name in told}}
            if isinstance(told["rule"], int):
                it.ctl["least"] = told["rule"]
            it.wait, it.ok, it.taken, it.made = told["gathers"], 0, True, 0
        due = self._grow(state, fresh, fragments)
        if fresh:
            it.made = first + len(rows)
            self._node_event(state, node, "node.expanded", attempt=attempt, first=first, count=len(rows), **told)
            due += self._adopt_grown(state, [row[0] for row in fresh])
        last, unwritten = max(made, first + len(rows)) >= told["of"], 0
        if last:
            self._hand_over(state, node, attempt, inc, tag, cats)
            it.lease, it.state = None, "pending"
            if it.bad:
                state.cascade.append(node)
            elif self._decide(state, node, told["rule"]):
                self._make_due(state, node)
                due.append(node)
            unwritten = self._consequences(state, due)
        else:
            self._announce(state, due)
        state.progress = self.now_ms
        return ["done" if last else "more", unwritten, *self._still_due(state, dict.fromkeys([*ids, *due]))]

    def _hand_over(self, state: RunState, node: str, attempt: int, inc: str, tag: str, cats: str) -> None:
        """An execution ends with what it made: its message goes."""
        state.nodes[node].done = attempt
        self._note_usage(state.key, node, attempt, cats)
        self._let_go(inc, tag)
        self._drop(tag)

    def _grow(self, state: RunState, rows: Sequence[NodeRow], fragments: Mapping[str, str]) -> list[str]:
        """Take in nodes that others became; returns those that are due. What the hold covers of their floors is theirs."""
        purse, due = self.purses[state.key], []
        free = purse.hold - purse.needed
        for id_, wait, ctl, spec, verdict, fragment in rows:
            said = json.loads(ctl)
            need = int(said.get("floor", "0")) + int(said.get("expects", "0"))
            if need <= free:
                free -= need
                purse.needed += need
                state.planned += need
            else:
                said |= {name: "0" for name in ("floor", "expects") if name in said}
            own = fragment.startswith("{")
            state.nodes[id_] = NodeState(int(wait), said, spec, verdict, id_ if own else fragment)
            if own:
                state.fragments[id_] = fragment
            if not int(wait) and not state.adopts.get(id_, (0,))[0]:
                self._make_due(state, id_)
                due.append(id_)
        state.fragments.update(fragments)
        state.total += len(rows)
        state.grown = state.grown or bool(rows)
        state.left += len(rows)
        return due

    def _adopt_grown(self, state: RunState, nodes: Sequence[str]) -> list[str]:
        """Take over what an earlier generation has done of nodes that others became just now; returns what became due by it."""
        adopted: dict[str, int] = {}
        for node in nodes:
            if node in state.adopts:
                it = state.nodes[node]
                generation, result, verdict = state.adopts.pop(node)
                if not generation:
                    it.ctl["source"] = result
                    continue
                it.adopted, it.result, it.verdict = generation, result, verdict
                self._write_outcome(state, node, "succeeded")
                adopted[node] = it.adopted
        if adopted:
            self._run_event(state, "node.adopted", nodes=adopted)
        return [child for node in adopted for child in self._propagate(state, node)]

    def lack(self, run: str, gen: int, node: str, inc: str, tag: str, delivery: int, task: str, patience_ms: int) -> Reply:
        """A worker lacks the node's task: ["gone"], ["back", delay_ms], ["early"] or, for too long, ["failed", more, reason, due..]."""
        self._fence()
        if not self._holds(inc, tag, delivery):
            return ["gone"]
        state = self.runs.get((run, gen))
        waits = state is not None and state.status == "running" and not state.stopped
        if state is None or not waits or node not in state.nodes or state.nodes[node].state != "due":
            self._let_go(inc, tag)
            self._drop(tag)
            return ["early"]
        it, pool = state.nodes[node], self._message(tag).pool
        there = {other: self.workers[other].info for other in sorted(self.slots_of(pool))}
        if any(task in info.get("tasks", ()) for info in there.values()):
            it.lacks = None
            self._release(inc, tag, BACK_MS)
            return ["back", BACK_MS]
        it.lacks = self.now_ms if it.lacks is None else it.lacks
        waited = self.now_ms - it.lacks
        if waited < patience_ms:
            delay_ms = max(BACK_MS, min(BACK_MS_MAX, waited // 4, patience_ms - waited))
            self._release(inc, tag, delay_ms)
            return ["back", delay_ms]
        named = [info.get("name", other) + (f" ({info['version']})" if "version" in info else "") for other, info in there.items()]
        more = f" and {len(named) - NAMED_MAX} more" if len(named) > NAMED_MAX else ""
        reason = f'for {waited // 1000} s no worker of the pool "{pool}" has had the task "{task}"; there are '
        reason += ", ".join(named[:NAMED_MAX]) + more
        self._let_go(inc, tag)
        self._drop(tag)
        it.fault = json.dumps({"type": "unserved", "message": reason})
        self._end_node(state, node, "failed", attempt=it.claims, reason=reason)
        due = self._propagate(state, node)
        left = self._consequences(state, due)
        return ["failed", left, reason, *due]

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
        """End an execution: ["done", unwritten, due nodes..], ["retry", delay_ms] or ["fenced"]; repeated, it answers the same.

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
        if it.stop is not None:
            outcome, error = "cancelled", it.stop
        it.done = attempt
        self._note_usage(state.key, node, attempt, cats)
        state.progress = self.now_ms
        if outcome == "succeeded":
            it.result = result
            self._end_node(state, node, outcome, attempt=attempt, result=result)
        elif outcome in ("skipped", "cancelled"):
            self._end_node(state, node, outcome, attempt=attempt, reason=error)
        else:
            it.fault = error
            it.fails += 1
            goes_on = state.status == "running" and not state.stopped and not state.ends(node)
            if it.fails < it.ctl["attempts"] and delay_ms >= 0 and goes_on:
                it.lease, it.state = None, "due"
                self.purses[state.key].needed += self._need(state, node)
                it.since = it.notbefore = self.now_ms + delay_ms
                self._node_event(state, node, "node.retry", attempt=attempt, outcome=outcome, error=error, delay_ms=delay_ms)
                self._release(inc, tag, delay_ms, demote=True)
                return ["retry", delay_ms]
            self._end_node(state, node, outcome, attempt=attempt, error=error)
        due = self._propagate(state, node)
        unwritten = self._consequences(state, due)
        return ["done" if it.stop is None else "stopped", unwritten, *due]

    def _finished_before(self, state: RunState, node: str, attempt: int, inc: str) -> Reply:
        """Answer a finish whose lease is over: once more if it was this attempt's own, else not at all."""
        it = state.nodes[node]
        if it.done != attempt or not attempt or inc not in self.workers or it.state in ("pending", "running"):
            return ["fenced"]
        if it.state == "due":
            return ["retry", max(0, it.notbefore - self.now_ms)]
        return ["done", self._unwritten(state), *self._due_children(state, node)]

    def _give_up(self, state: RunState, node: str, row: str, outcome: str, reason: str) -> Reply:
        it = state.nodes[node]
        named = _named(state.terminated)
        if row == "stopped":
            self._end_node(state, node, outcome, reason=reason, **named)
        else:
            it.fault = json.dumps({"type": row, "message": reason})
            self._end_node(state, node, outcome, attempt=it.claims, reason=reason, **named)
        due = self._propagate(state, node)
        self._consequences(state, due)
        return [row, outcome, reason, due]

    # Decisions about nodes that have not begun

    def decide(self, run: str, gen: int, n: int, mark: str, fence: str, plan: str, event: str, kept: Sequence[str] = ()) -> int:
        """Store the n-th decision about a run, once; 0 where another is the n-th, one is being applied, or nothing is to be decided."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status not in ("running", "loading") or state.stopped or state.terminated:
            return 0
        if n != state.decisions + 1 or state.open:
            return 0
        decision = f"{run}.{gen}.{n}"
        state.decisions, state.mark = n, mark
        if plan:
            state.open, state.plan = decision, plan
        if fence == "terminated":
            state.terminated = decision
        elif fence:
            state.waits = "" if fence == "none" else fence
        state.kept.update(kept)
        self._append_text(event)
        return 1

    def judge(self, run: str, gen: int, decision: str, choices: Mapping[str, str]) -> int:
        """Set what nodes that have not begun run as: a variant, or '' for as they are. Returns how many were changed."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status not in ("running", "loading") or not state.stands(decision):
            return 0
        judged = {id_: choice for id_, choice in choices.items() if id_ in state.nodes}
        judged = {id_: choice for id_, choice in judged.items() if state.nodes[id_].waits and state.nodes[id_].verdict != choice}
        for id_, choice in judged.items():
            state.nodes[id_].verdict = choice
        if judged:
            self._run_event(state, "node.judged", nodes=judged, decision=decision)
            state.progress = self.now_ms
        return len(judged)

    def conclude(self, run: str, gen: int, decision: str, left: str, raised: int, event: str) -> Reply:
        """All of a decision is applied: the hold falls to `left`, or with `raised` rises to it; [1, what it gained] or [0, '0']."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.open != decision:
            return [0, "0"]
        state.open = state.plan = ""
        moved = self._hold_to(state.key, int(left), raised=bool(raised)) if left and state.status != "ended" else 0
        self._append_text(event, **({"to_hold": str(moved)} if moved else {}))
        return [1, str(moved)]

    def approve(self, run: str, gen: int, budget: str, reason: str, by: str) -> int:
        """Note that somebody lets a run go on that a decision holds, and raise its own limit; 0 where nothing waits for that."""
        self._fence()
        state = self.runs.get((run, gen))
        held = state is not None and state.status == "running" and state.waits == "hold" and f"run:{run}.{gen}" in self.paused
        if state is None or not held:
            return 0
        state.waits = ""
        self._run_event(state, "run.approved", budget=self._raise_budget(state.key, budget), reason=reason, by=by)
        return 1

    def stand_by(self, run: str, gen: int, kept_ms: int | None) -> str:
        """A run's place and hold follow its pause: away, back, lapsed, or '' where nothing has changed."""
        self._fence()
        state, purse = self.runs.get((run, gen)), self.purses.get((run, gen))
        if state is None or purse is None or state.status not in ("running", "loading"):
            return ""
        if f"run:{run}.{gen}" not in self.paused:
            if not self._take_place(state.key):
                return ""
            moved = self._hold_to(state.key, purse.hold, raised=True) if purse.lapsed else 0
            purse.lapsed = False
            self._run_event(state, "run.back", **_moved(moved))
            return "back"
        if self._leave_place(state.key):
            self._run_event(state, "run.away")
            return "away"
        if kept_ms is None or not purse.hold or self.now_ms - self.away[state.key] < kept_ms:
            return ""
        held, purse.lapsed = purse.hold, True
        self._count_held(state.key, -held)
        self._run_event(state, "run.lapsed", **_moved(-held))
        return "lapsed"

    def skip(self, run: str, gen: int, reason: str, nodes: Sequence[str], decision: str = "") -> Reply:
        """Give up optional nodes that have not begun; joins let them pass. Returns [number skipped, due nodes..].

        Comes after the last `load`: a child that is loaded later would wait for what was skipped before.
        """
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status in ("ended", "cancelling") or not state.stands(decision):
            return [0]
        skipped, due = 0, []
        for id_ in nodes:
            it = state.nodes.get(id_)
            if it is not None and it.waits and not it.ctl["required"]:
                self._drop_once(state.task_id(id_))
                self._end_node(state, id_, "skipped", reason=reason, **_named(decision))
                due += self._propagate(state, id_)
                skipped += 1
        state.progress = self.now_ms
        self._consequences(state, due)
        return [skipped, *self._still_due(state, due)]

    def revoke(self, run: str, gen: int, outcome: str, reason: str, nodes: Sequence[str], decision: str = "") -> Reply:
        """Give nodes that have not begun, or whose worker is gone, an outcome: [number, unwritten, due nodes..]. Their messages go."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status == "ended" or not state.stands(decision):
            return [0, 0]
        revoked, due = 0, []
        for id_ in nodes:
            it = state.nodes.get(id_)
            if it is None or it.ended or (it.lease is not None and self._live(it.lease)):
                continue
            self._close_lost(state, id_)
            self._drop_once(state.task_id(id_))
            self._end_node(state, id_, outcome, reason=reason, **_named(decision))
            due += self._propagate(state, id_)
            revoked += 1
        unwritten = self._consequences(state, due)
        return [revoked, unwritten, *self._still_due(state, due)]

    def stop(self, run: str, gen: int, reason: str, by: str, nodes: Sequence[str]) -> Reply:
        """Cancel nodes, children before their parents: [number cancelled, number told because they run, more, due nodes..]."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status == "ended":
            return [0, 0, 0]
        named = [id_ for id_ in dict.fromkeys(nodes) if id_ in state.nodes and not state.nodes[id_].ended]
        if not named:
            return [0, 0, 0]
        for id_ in named:
            state.nodes[id_].stop = reason
        self._run_event(state, "node.cancelling", nodes=named, reason=reason, by=by)
        told, due = 0, []
        for id_ in named:
            it = state.nodes[id_]
            if it.lease is not None and self._live(it.lease):
                told += 1
                continue
            self._close_lost(state, id_)
            self._drop_once(state.task_id(id_))
            self._end_node(state, id_, "cancelled", reason=reason)
            due += self._propagate(state, id_)
        more = self._consequences(state, due)
        state.progress = self.now_ms
        return [len(named) - told, told, more, *self._still_due(state, due)]

    def rank(self, run: str, gen: int, priority: int, reason: str, by: str) -> str:
        """Give all that is put in line of a run from here on this priority; returns the former one, '' when it is unknown or has ended."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status == "ended":
            return ""
        former = self.ranks.get(f"{run}.{gen}", state.priority)
        self.ranks[f"{run}.{gen}"] = priority
        self._run_event(state, "run.reprioritised", priority=priority, former=former, reason=reason, by=by)
        return str(former)

    def deadline(self, run: str, gen: int, timeout_s: int, node: str, reason: str, by: str) -> str:
        """Raise the time limit of a node ('' = of all): what it had been raised to, '' when the run is over, `ended` when the node is."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status == "ended":
            return ""
        if node in state.nodes and state.nodes[node].ended:
            return "ended"
        raised = self.timeouts.setdefault(f"{run}.{gen}", {})
        field = state.task_id(node) if node else "*"
        former = raised.get(field, 0)
        raised[field] = max(timeout_s, former)
        named = {"node": node} if node else {}
        self._run_event(state, "deadline.raised", **named, timeout_s=raised[field], former=former, reason=reason, by=by)
        return str(former)

    def told(self, run: str, gen: int, node: str, attempt: int, inc: str) -> str:
        """Return why an execution should stop, '' where it should go on."""
        self._fence()
        state = self.runs.get((run, gen))
        it = state.nodes.get(node) if state is not None else None
        lease = it.lease if it is not None else None
        if state is None or it is None or lease is None or not self._live(lease) or (lease.attempt, lease.inc) != (attempt, inc):
            return "another attempt has taken its place"
        if state.status == "cancelling":
            return state.reason
        if state.stopped:
            return state.stopped
        if self._is_fenced(state):
            return "everything of its tenant was cancelled"
        return it.stop or ""

    def fence(self, scope: str, reason: str, by: str) -> int:
        """Let nothing begin of what was admitted up to now in `platform` or `tenant:{id}`; returns the time."""
        self._fence()
        self.fences[scope] = self.now_ms
        self._append("scope.cancelled", scope=scope, reason=reason, by=by)
        return self.now_ms

    def _is_fenced(self, state: RunState) -> bool:
        fences = [self.fences.get(scope, -1) for scope in ("platform", f"tenant:{state.tenant}")]
        return state.created <= max(fences)

    def cascade(self, run: str, gen: int, limit: int) -> Reply:
        """Go on writing the fate of descendants: [unwritten, due nodes..].

        unwritten: 1 when there are more, 2 when a failure stopped the run and what has not begun is to be revoked, else 0.
        """
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status == "ended":
            return [0]
        due: list[str] = []
        return [self._consequences(state, due, limit), *due]

    def stale(self, run: str, gen: int, age_ms: int, nodes: Sequence[str]) -> list[str]:
        """Return which of the nodes should have a message or a live lease and have neither: to be published.

        An execution whose lease is not live is closed, and its node due again, also where its message waits in line.
        """
        self._fence()
        state = self.runs.get((run, gen))
        if state is None or state.status != "running":
            return []
        publish: list[str] = []
        orphaned: list[str] = []
        for id_ in nodes:
            it = state.nodes.get(id_)
            if it is None:
                continue
            outstanding = self._outstanding(state.task_id(id_))
            if it.lease is not None and not self._live(it.lease):
                self._close_lost(state, id_)
                it.state = "pending"
                orphaned.append(id_)
                if not outstanding:
                    publish.append(id_)
            elif it.since is not None and it.since <= self.now_ms - age_ms and not outstanding:
                publish.append(id_)
        for id_ in orphaned:
            self._make_due(state, id_)
        self._announce(state, orphaned)
        return publish

    # Money scripts

    def extend(self, run: str, gen: int, node: str, attempt: int, inc: str, cats: str) -> Reply:
        """Raise a running execution's reservation to what it uses by now.

        ["ok"], ["closed"] (its lease is over), ["unknown"] or ["refused", reason, limit, current].
        """
        self._fence()
        state = self.runs.get((run, gen))
        lease = state.nodes[node].lease if state is not None and node in state.nodes else None
        if lease is None or not self._live(lease) or (lease.attempt, lease.inc) != (attempt, inc):
            return ["closed" if (node, attempt) in self.reservations.get((run, gen), {}) else "unknown"]
        answer = self._extend((run, gen), node, attempt, cats)
        return ["refused", answer.reason, str(answer.limit), str(answer.current)] if isinstance(answer, Short) else [answer]

    def settle(self, run: str, gen: int, node: str, attempt: int, cats: str, by: str, price_version: str = "") -> Reply:
        """Charge an execution, once: [settled, same, conflict, waste (it was void before) or unknown, 0 or 1, 0 or 1]. May end the run.

        The first 1: a run that waits may be able to start; the second: a level was entered.
        """
        self._fence()
        state = self.runs.get((run, gen))
        if state is None:
            return ["unknown", 0, 0]
        told = len(self.events)
        had_ended = state.status == "ended"
        answer = self._settle(state.key, node, attempt, cats, by, unfinished=state.left > 0, price_version=price_version)
        if answer == "settled":
            self._need_again(state, node, attempt)
        self._maybe_end(state)
        entered = any(event["t"] == "level.entered" for event in self.events[told:])
        return [answer, self._somebody_may_start(ended=state.status == "ended" and not had_ended), int(entered)]

    def void(self, run: str, gen: int, node: str, attempt: int, by: str) -> str:
        """Give an execution's reservation back: void, same, conflict (it was charged) or unknown. May end the run."""
        self._fence()
        state = self.runs.get((run, gen))
        if state is None:
            return "unknown"
        answer = self._void(state.key, node, attempt, by, unfinished=state.left > 0)
        if answer == "void":
            self._need_again(state, node, attempt)
        self._maybe_end(state)
        return answer

    def give_up(self, run: str, gen: int, node: str, attempt: int, inc: str, by: str) -> str:
        """End an execution whose process was ended on purpose: settled with what it had noted, or void; gone where it has ended.

        The node waits for the next one; unlike the loss of a worker that counts against nobody.
        """
        self._fence()
        state = self.runs.get((run, gen))
        it = None if state is None else state.nodes.get(node)
        if state is None or it is None or it.lease is None or (it.lease.attempt, it.lease.inc) != (attempt, inc):
            return "gone"
        it.lease = None
        noted = self.reservations[state.key][node, attempt].cats
        if noted:
            answer = self._settle(state.key, node, attempt, noted, by, unfinished=True)
        else:
            answer = self._void(state.key, node, attempt, by, unfinished=True)
        self.purses[state.key].needed += self._need(state, node)
        self._make_due(state, node)
        self._announce(state, [node])
        return answer

    # What these are made of

    def _need(self, state: RunState, node: str) -> int:
        """What the run needs for a node that waits; not while what its last attempt had set aside is still to be settled."""
        it = state.nodes[node]
        last = self.reservations.get(state.key, {}).get((node, it.claims))
        return 0 if last is not None and last.state == "open" else int(it.ctl.get("floor", "0"))

    def _need_again(self, state: RunState, node: str, attempt: int) -> None:
        """The last execution of a node that waits for its next attempt was closed."""
        it = state.nodes[node]
        if not it.ended and it.lease is None and it.claims == attempt:
            self.purses[state.key].needed += self._need(state, node)

    def record(self) -> None:
        """What the recorder says after a commit: everything so far is on record."""
        self.recorded, self.recorded_ms = (self.epoch, self.sequence), self.now_ms

    def _is_recorder_behind(self, most_ms: int) -> bool:
        """Whether an event has waited for the recorder longer than `most_ms`; 0 is no limit. One that is idle is never behind."""
        if not most_ms or self.recorded is None or self.now_ms - self.recorded_ms <= most_ms:
            return False
        waiting = next((event for event in self.events if event["id"] > self.recorded), None)
        return waiting is not None and self.now_ms - waiting["at"] > most_ms

    def _append_text(self, text: str, **more: object) -> None:
        event = {**json.loads(text), **more}
        self._append(event.pop("t"), **event)

    def _node_event(self, state: RunState, node: str, type_: str, **fields: object) -> None:
        self._run_event(state, type_, node=node, **fields)

    def _live(self, lease: Lease) -> bool:
        return self._holds(lease.inc, lease.tag, lease.delivery)

    def _due_children(self, state: RunState, node: str) -> list[str]:
        """Children that are due and not begun: what a repeated reply names again."""
        it = state.nodes[node]
        return self._still_due(state, [*it.ctl["next"], *(child for child, _, _ in it.joins)])

    @staticmethod
    def _still_due(state: RunState, nodes: Iterable[str]) -> list[str]:
        return [id_ for id_ in nodes if state.nodes[id_].state == "due"]

    def _make_due(self, state: RunState, node: str) -> None:
        state.nodes[node].state, state.nodes[node].since = "due", self.now_ms

    def _announce(self, state: RunState, nodes: Sequence[str]) -> None:
        """The events of nodes that became due in this call; not of those that got their outcome since."""
        due = self._still_due(state, nodes)
        for first in range(0, len(due), TAGS_MAX):
            self._run_event(state, "node.due", nodes=due[first : first + TAGS_MAX])

    def _end_node(self, state: RunState, node: str, outcome: str, *, not_taken: bool = False, **fields: object) -> None:
        """The one place where a node gets its outcome. not_taken: it is on a branch not taken, which says nothing against the run."""
        self._write_outcome(state, node, outcome, not_taken=not_taken)
        self._node_event(state, node, "node.ended", outcome=outcome, **fields)
        if state.stops and not state.stopped and state.status == "running":
            self._stop(state, node, outcome)

    def _stop(self, state: RunState, node: str, outcome: str) -> None:
        """The first required node that fails stops a run that is to be stopped by it."""
        if state.nodes[node].ctl["required"] and outcome in ("failed", "timed_out"):
            state.stopped = f"stopped: the node '{node}' {'failed' if outcome == 'failed' else 'timed out'}"
            self._node_event(state, node, "run.stopping", reason=state.stopped)

    def _write_outcome(self, state: RunState, node: str, outcome: str, *, not_taken: bool = False) -> None:
        it = state.nodes[node]
        assert not it.ended, f"{node} has the outcome {it.state} and cannot get {outcome}"
        if it.lease is None and state.key in self.purses:
            self.purses[state.key].needed -= self._need(state, node)
        if state.key in self.purses:
            self.purses[state.key].needed -= int(it.ctl.get("expects", 0))  # a map that was never expanded
        it.state, it.lease, it.since, it.not_taken = outcome, None, None, not_taken
        state.left -= 1
        state.counts[outcome] = state.counts.get(outcome, 0) + 1
        if outcome != "succeeded" and not not_taken:
            if it.ctl["required"]:
                state.required_failed = True
            else:
                state.degraded = True
        elif outcome == "succeeded" and it.verdict:
            state.degraded = True

    def _consequences(self, state: RunState, due: list[str], limit: int = TAGS_MAX) -> int:
        """Write what is sealed; adds to the nodes that became `due` in this call, and returns what is unwritten, as `cascade` says it."""
        for _ in range(limit):
            if not state.cascade:
                break
            entry = state.cascade.pop(0)
            node = entry.removeprefix("!")
            if state.nodes[node].state == "pending":
                self._drop_once(state.task_id(node))
                self._seal(state, node, not_taken=entry != node)
                due += self._propagate(state, node)
        self._announce(state, due)
        self._maybe_end(state)
        return self._unwritten(state)

    @staticmethod
    def _unwritten(state: RunState) -> int:
        return 1 if state.cascade else 2 if state.stopped and state.left else 0

    def _seal(self, state: RunState, node: str, *, not_taken: bool) -> None:
        it = state.nodes[node]
        if not_taken:
            why = self._unmet(state, node) if it.taken else "none of the nodes before it was taken"
            self._end_node(state, node, "skipped", not_taken=True, reason=f"{NOT_TAKEN}{why}")
        else:
            least = it.ctl.get("least")
            why = f"fewer than {least} of the nodes before it can succeed" if least else "a required node before it did not succeed"
            self._end_node(state, node, "upstream_failed", reason=why)

    def _propagate(self, state: RunState, node: str) -> list[str]:
        """Count down the children of a node that ended, or seal their fate; returns those that became due."""
        if state.status == "cancelling" or state.stopped:
            return []
        it, due = state.nodes[node], []
        for child in it.ctl["next"]:
            below = state.nodes[child]
            if it.how == "bad":
                state.cascade.append(child)
                continue
            below.wait -= 1
            if below.wait == 0 and below.state == "pending":
                due.append(child)
        for child, rule, grown in it.joins:
            if self._arrive(state, child, rule, it.how, grown=grown):
                due.append(child)
        for child in due:
            self._make_due(state, child)
        return due

    def _arrive(self, state: RunState, node: str, rule: Rule, how: str, *, grown: bool) -> bool:
        """A parent of a node that counts its parents has ended; says whether the node is due, and seals its fate where it is decided.

        What follows does not depend on the order in which they end. grown: the parent is what the node was expanded to; those that it
        had before are not heard any more then.
        """
        it = state.nodes[node]
        if it.made is not None and not grown:
            return False
        if how == "bad" and rule == "all_succeeded":
            it.bad = it.bad or grown
            state.cascade.append(node)
            return False
        it.wait -= 1
        it.taken = it.taken or how != "untaken"
        if isinstance(rule, int):
            it.ok += how == "succeeded"
        return it.state == "pending" and self._decide(state, node, rule)

    def _decide(self, state: RunState, node: str, rule: Rule) -> bool:
        """Say whether a node that counts its parents is due, by what is counted.

        Not taken if none of them was, upstream_failed if the rule cannot be met, else due if its condition holds.
        """
        it = state.nodes[node]
        least = rule if isinstance(rule, int) else None
        if it.wait == 0 and not it.taken:
            state.cascade.append(f"!{node}")
        elif least is not None and it.ok < least:
            if it.ok + it.wait < least and it.taken:
                state.cascade.append(node)
        elif least is not None or it.wait == 0:
            unmet = self._unmet(state, node)
            if unmet:
                state.cascade.append(f"!{node}")
            return unmet == ""
        return False

    @staticmethod
    def _unmet(state: RunState, node: str) -> str | None:
        """Return why the condition of a node does not hold, '' where it does, None while the node that it asks about has not ended."""
        when = state.nodes[node].ctl.get("when")
        if when is None:
            return ""
        asked = state.nodes[when["ref"]]
        if asked.result is None:
            return f"{when['ref']} has no result" if asked.ended else None
        return "" if holds(when, asked.result) else str(when["why"])

    def _close_lost(self, state: RunState, node: str) -> None:
        """End the lease of an execution whose worker is gone, if there is one: its money returns."""
        it = state.nodes[node]
        if it.lease is None:
            return
        attempt, inc, it.lease = it.lease.attempt, it.lease.inc, None
        it.lost += 1
        self._node_event(state, node, "node.lost", attempt=attempt, inc=inc)
        self._void(state.key, node, attempt, "lost", unfinished=True)
        self.purses[state.key].needed += self._need(state, node)

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
            if event["t"] == "node.adopted":
                for node in event["nodes"]:
                    task_id = f"{event['run']}.{event['gen']}.{node}"
                    assert task_id not in ended, f"{task_id} ended as {ended[task_id]} and was adopted"
                    ended[task_id] = "succeeded"
        for state in self.runs.values():
            self._check_run(state, ended)

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
        purse = self.purses.get(state.key)
        if purse is not None and state.status != "ended":
            waiting = sum(self._need(state, id_) for id_, it in state.nodes.items() if not it.ended and it.lease is None)
            waiting += sum(int(it.ctl.get("expects", 0)) for it in state.nodes.values() if not it.ended)
            loaded = sum(int(it.ctl.get("floor", "0")) + int(it.ctl.get("expects", 0)) for it in state.nodes.values())
            left = state.floor + state.planned - loaded
            assert purse.needed == waiting + left, f"{state.key} needs {waiting} and {left} not loaded yet"
        if state.status == "ended":
            assert state.left == 0, state.key
            assert purse is None or (purse.open, purse.hold, purse.reserved) == (0, 0, 0), state.key
        elif state.status in ("running", "loading") and not state.stopped:
            self._check_joins(state)

    def _check_joins(self, state: RunState) -> None:
        in_the_way, ok = dict.fromkeys(state.nodes, 0), dict.fromkeys(state.nodes, 0)
        rules: dict[str, Rule] = {}
        taken: set[str] = set()
        for it in state.nodes.values():
            for child, rule, grown in [*((child, "all_succeeded", False) for child in it.ctl["next"]), *it.joins]:
                if child not in in_the_way or grown != (state.nodes[child].made is not None):
                    continue
                rules[child] = rule
                in_the_way[child] += not it.ended or (it.how == "bad" and rule == "all_succeeded")
                ok[child] += it.how == "succeeded"
                if it.ended and it.how != "untaken":
                    taken.add(child)
        for id_, it in state.nodes.items():
            rule = rules.get(id_, "all_succeeded")
            if it.made is not None and it.made < it.ctl["of"]:
                continue  # it is on its way to what it becomes
            assert it.wait == in_the_way[id_], f"{id_} waits for {it.wait}, {in_the_way[id_]} stand in its way"
            if it.state in ("due", "running", "succeeded", "failed") and not it.adopted:
                met = ok[id_] >= rule if isinstance(rule, int) else it.wait == 0
                assert met, f"{id_} is {it.state} before its parents ended"
                assert id_ in taken or id_ not in rules or not it.ctl.get("when"), f"{id_} runs on a branch not taken"
                assert self._unmet(state, id_) == "", f"{id_} runs against its condition"
            if it.not_taken:
                assert id_ not in taken or self._unmet(state, id_), f"{id_} was taken"


def _moved(micros: int) -> dict[str, Any]:
    """The field of an event that moved money to a hold, or from it."""
    return {"to_hold": str(micros)} if micros else {}


def _named(decision: str) -> dict[str, Any]:
    """The field of an event that a decision brought about."""
    return {"decision": decision} if decision else {}
