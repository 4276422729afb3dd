"""Run state on Redis: one method for each script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.backpressure import DEFAULT, Backpressure
from tenancy.link import Link

PREFIX = "orchestrator/state/"

ROWS_MAX = 200
"""Rows or nodes that one script call may carry."""


class Charged(NamedTuple):
    """What became of a settlement; whether a run that waits may start now (`let_in` finds out), and whether a level was entered."""

    answer: str
    may_start: bool
    entered: bool


class Charge(NamedTuple):
    """What an execution is charged: cats is `llm=30000,compute=12`, lines its usage by unit as JSON; '' where that is not known."""

    run: str
    gen: int
    node: str
    attempt: int
    cats: str
    by: str
    price_version: str = ""
    lines: str = ""


class State:
    """One method for each script; arguments as docs/protocol.md has them, without the server id.

    Replies are the scripts' own, as lists of str and int.
    """

    def __init__(self, link: Link, backpressure: Backpressure = DEFAULT, lag_ms: int = 0, refusal_ms: int = 0) -> None:
        """lag_ms: how far the record may be behind before nothing begins any more; 0 is no limit.

        refusal_ms: how long a node that the money does not cover waits for the agent before that is its outcome; 0 is not at all.
        """
        self.link = link
        self.lag_ms = lag_ms
        self.refusal_ms = refusal_ms
        self.rules = backpressure

    def _call(self, script: str, *arguments: str | int) -> Any:
        return self.link.call(PREFIX + script, *arguments)

    def admit(self, run: str, gen: int, tenant: str, want: Mapping[str, Any], until_ms: int = 0) -> list[Any]:
        """Admit a run: ['admitted', hold], ['held', why, nudge], ['refused', reason, limit, current, retry_after_ms], or ['stale'].

        until_ms: of Redis's time; an unknown run is not admitted after it, because it may be over and forgotten. 0: there is no such time.

        want: graph, total, estimate, floor, budget, priority, max_parallel, pools, roots, tasks; `Submission.want` makes it.
        """
        return list(self._call("admit", run, gen, tenant, json.dumps(want), *self.rules, until_ms))

    def knock(self, tenant: str) -> list[str]:
        """Ask whether the tenant may submit another run: ['ok'], or ['rate' or 'queue', limit, current, retry_after_ms]."""
        return list(self._call("knock", tenant))

    def let_in(self, most: int) -> list[Any]:
        """Let at most so many waiting runs in: [more, run.gen..]; they are loading, and to be started."""
        return list(self._call("let_in", most, *self.rules))

    def load(self, run: str, gen: int, rows: Sequence[Sequence[str | int]], fragments: Mapping[int, str]) -> int:
        """Load nodes (id, wait, ctl, spec, verdict, fragment) and fragments (index -> JSON)."""
        flat = [value for row in rows for value in row]
        pairs = [value for pair in fragments.items() for value in pair]
        return int(self._call("load", run, gen, len(rows), *flat, *pairs))

    def adopt(self, run: str, gen: int, rows: Sequence[Sequence[str | int]]) -> int:
        """Take over nodes (id, generation, result, verdict) of an earlier generation, children first; how many were not yet."""
        return int(self._call("adopt", run, gen, *(value for row in rows for value in row)))

    def launch(self, run: str, gen: int, degraded: int, last: int, roots: Sequence[str]) -> list[str]:
        """Make roots due; with the last piece of them start the run. Returns those that are due."""
        return list(self._call("launch", run, gen, degraded, last, *roots))

    def begin(self, run: str, gen: int, node: str, inc: str, tag: str, delivery: int, worker: str) -> list[Any]:
        """Claim a node: a row of the gate table."""
        return self.charge_and_begin((), run, gen, node, inc, tag, delivery, worker)[1]

    def charge_and_begin(
        self, charges: Sequence[Charge], run: str, gen: int, node: str, inc: str, tag: str, delivery: int, worker: str
    ) -> tuple[list[Charged], list[Any]]:
        """Settle executions, then claim a node, in one round trip: the answers of `charge`, and a row of the gate table.

        Those of the same run are settled by the script that claims: most of what either costs is to begin.
        """
        own = [(charge.run, charge.gen) == (run, gen) for charge in charges]
        calls: list[tuple[str, Sequence[str | int]]] = [
            (f"{PREFIX}settle", self._arguments(charge)) for charge, rides in zip(charges, own, strict=True) if not rides
        ]
        claim: list[str | int] = [run, gen, node, inc, tag, delivery, worker, self.lag_ms, self.refusal_ms]
        riding = [part for charge, rides in zip(charges, own, strict=True) if rides for part in charge[2:]]
        if riding:
            claim += [*self.rules, *riding]
        calls.append((f"{PREFIX}begin", claim))
        *others, row = self.link.batch(calls)
        rode, row = row if riding else ([], row)
        left, right = iter(others), iter(rode)
        return [_charged(next(right) if rides else next(left)) for rides in own], list(row)

    def expand(
        self,
        run: str,
        gen: int,
        node: str,
        attempt: int,
        inc: str,
        told: Mapping[str, Any],
        first: int,
        rows: Sequence[Sequence[str | int]],
        fragments: Mapping[str, str],
        cats: str = "",
        price_version: str = "",
        lines: str = "",
    ) -> list[Any]:
        """Bring a piece of the nodes that a node becomes: ['more' or 'done' or 'stopped', unwritten, due..] or ['fenced'].

        told: rule, gathers, of, source, optional. rows: id, wait, ctl, spec, verdict, fragment.
        """
        flat = [value for row in rows for value in row]
        pairs = [value for pair in fragments.items() for value in pair]
        usage = cats, price_version, lines
        return list(
            self._call("expand", run, gen, node, attempt, inc, *usage, json.dumps(told), first, *flat, *(["", *pairs] if pairs else []))
        )

    def lack(self, run: str, gen: int, node: str, inc: str, tag: str, delivery: int, task: str, patience_ms: int) -> list[Any]:
        """Hand back a node whose task this worker lacks: ['gone'], ['back', delay_ms], ['early'] or ['failed', more, reason, due..]."""
        return list(self._call("lack", run, gen, node, inc, tag, delivery, task, patience_ms))

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
        price_version: str = "",
        lines: str = "",
    ) -> list[Any]:
        """End an execution: ['done', unwritten, due..], ['retry', delay_ms] or ['fenced']; `lines` is its usage by unit, for the record."""
        return list(self._call("finish", run, gen, node, attempt, inc, outcome, result, error, cats, delay_ms, price_version, lines))

    def extend(self, run: str, gen: int, node: str, attempt: int, inc: str, cats: str) -> list[str]:
        """Cover what a running execution uses by now: ['ok'], ['closed'], ['unknown'] or ['refused', reason, limit, current]."""
        return list(self._call("extend", run, gen, node, attempt, inc, cats))

    def settle(self, run: str, gen: int, node: str, attempt: int, cats: str, by: str) -> str:
        """Settle an execution once: settled, same, conflict, waste or unknown."""
        return self.charge(run, gen, node, attempt, cats, by)[0]

    def charge(self, run: str, gen: int, node: str, attempt: int, cats: str, by: str, price_version: str = "", lines: str = "") -> Charged:
        """Settle an execution, and say what may follow from that."""
        return _charged(self._call("settle", *self._arguments(Charge(run, gen, node, attempt, cats, by, price_version, lines))))

    def _arguments(self, charge: Charge) -> tuple[str | int, ...]:
        return *charge[:-1], *self.rules, charge.lines

    def void(self, run: str, gen: int, node: str, attempt: int, by: str) -> str:
        """Give a reservation back: void, same, conflict or unknown."""
        return str(self._call("void", run, gen, node, attempt, by))

    def give_up(self, run: str, gen: int, node: str, attempt: int, inc: str, by: str) -> str:
        """End an execution whose process was ended on purpose: settled, void or gone; its node is due again."""
        return str(self._call("give_up", run, gen, node, attempt, inc, by))

    def skip(self, run: str, gen: int, reason: str, nodes: Sequence[str], decision: str = "") -> list[Any]:
        """Give up optional nodes that have not begun: [count, due..]; nothing for a decision that is completed."""
        return list(self._call("skip", run, gen, reason, decision, *nodes))

    def decide(self, run: str, gen: int, n: int, mark: str, fence: str, plan: str, event: str, kept: Sequence[str] = ()) -> bool:
        """Store the n-th decision about a run; False when another one is the n-th, or nothing is to be decided.

        fence: '', terminated, hold, finish or none (docs/protocol.md). plan: JSON of what is to be applied, '' for nothing. event: JSON.
        """
        return bool(self._call("decide", run, gen, n, mark, fence, plan, event, *kept))

    def judge(self, run: str, gen: int, decision: str, choices: Mapping[str, str]) -> int:
        """Set what nodes (at most 200) that have not begun run as: a variant, or '' for as they are; how many were changed."""
        return int(self._call("judge", run, gen, decision, *(text for pair in choices.items() for text in pair)))

    def conclude(self, run: str, gen: int, decision: str, left: int | None, event: str, *, raised: bool = False) -> int | None:
        """Say that all of a decision is applied, and bring the hold to `left` micros (None: it stays); `raised`: also upwards.

        Returns what the hold gained, less than 0 where it gave back; None when somebody else completed it.
        """
        said = "" if left is None else str(left)
        done, moved = self._call("conclude", run, gen, decision, said, int(raised), event)
        return int(moved) if done else None

    def approve(self, run: str, gen: int, budget_micros: int | None, reason: str, by: str) -> bool:
        """Note that a run goes on that a decision holds, and raise its own limit (None: it stays); False where nothing waits for that."""
        return bool(self._call("approve", run, gen, "" if budget_micros is None else str(budget_micros), reason, by))

    def stand_by(self, run: str, gen: int, kept_ms: int | None = None) -> str:
        """Have a run's place and hold follow its pause: `away`, `back`, `lapsed`, or '' where nothing has changed.

        kept_ms: how long a paused run keeps what it holds (None: this time that is not looked at).
        """
        return str(self._call("stand_by", run, gen, "" if kept_ms is None else str(kept_ms)))

    def cancel(self, run: str, gen: int, reason: str, by: str, tenant: str = "", want: Mapping[str, Any] | None = None) -> int:
        """Set the fence of a run; with tenant and want also of one that is on record only."""
        return int(self._call("cancel", run, gen, reason, by, *([tenant, json.dumps(want)] if want is not None else [])))

    def stop(self, run: str, gen: int, reason: str, by: str, nodes: Sequence[str]) -> list[Any]:
        """Cancel nodes, children first: [cancelled, told, more, due..]."""
        return list(self._call("stop", run, gen, reason, by, *nodes))

    def rank(self, run: str, gen: int, priority: int, reason: str, by: str) -> str:
        """Give what is put in line of a run from here on this priority; the former one, '' when it is unknown or has ended."""
        return str(self._call("rank", run, gen, priority, reason, by))

    def deadline(self, run: str, gen: int, timeout_s: int, node: str, reason: str, by: str) -> str:
        """Raise the time limit of a node ('' = of all): what it had been raised to, '' when the run is over, `ended` when the node is."""
        return str(self._call("deadline", run, gen, timeout_s, node, reason, by))

    def told(self, run: str, gen: int, node: str, attempt: int, inc: str) -> str:
        """Why an execution should stop, '' where it should go on."""
        return str(self._call("told", run, gen, node, attempt, inc))

    def fence(self, scope: str, reason: str, by: str) -> int:
        """Set the fence of `platform` or `tenant:{id}`; returns its time, ms."""
        return int(self._call("fence", scope, reason, by))

    def revoke(self, run: str, gen: int, outcome: str, reason: str, nodes: Sequence[str], decision: str = "") -> list[Any]:
        """Give nodes that have not begun an outcome: [count, unwritten, due..]; unwritten as `cascade` says it."""
        return list(self._call("revoke", run, gen, outcome, reason, decision, *nodes))

    def cascade(self, run: str, gen: int, limit: int = ROWS_MAX) -> list[Any]:
        """Go on writing the fate of descendants: [unwritten, due..]; 1: there are more, 2: a failure stopped the run, revoke the rest."""
        return list(self._call("cascade", run, gen, limit))

    def forget(self, kept_ms: int, names: Sequence[str]) -> list[int]:
        """Forget those of the runs `run.gen` (50 at most) whose end has been on record for `kept_ms`: [how many, more]."""
        return list(self._call("forget", kept_ms, *names))

    def stale(self, run: str, gen: int, age_ms: int, nodes: Sequence[str]) -> list[str]:
        """Which of the nodes have neither message nor live lease: to publish."""
        return list(self._call("stale", run, gen, age_ms, *nodes))


def _charged(answer: Sequence[Any]) -> Charged:
    said, may_start, entered = answer
    return Charged(str(said), bool(may_start), bool(entered))
