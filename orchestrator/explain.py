"""Why a node or a run came to what it is: its outcome, the decision behind it, what tripped that, and the charge behind that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine, select
from sqlalchemy.engine import Connection

from cost.money import format_units
from orchestrator.graph import Graph
from orchestrator.joins import NOT_TAKEN
from orchestrator.store import read
from orchestrator.store import tables as t
from orchestrator.store.decisions import Change, DecisionView, view
from tenancy.errors import Unknown

BAD: Final = ("failed", "timed_out", "cancelled", "upstream_failed")
"""Outcomes that stand in the way of who needs the node."""

_STEPS_MAX: Final = 64
"""Parents that are walked back; a chain of failures longer than that is cut."""

_DECIDED: Final = {
    "degrade": "to give up less important work",
    "restore": "to give back what was given up",
    "terminate": "to end the run: its required nodes cannot be paid for any more",
    "hold": "to hold the run until somebody approves",
    "finish": "to start nothing more and to let finish what runs",
    "continue": "to go on",
}


@dataclass(frozen=True)
class Step:
    """One thing that led to the one before it.

    kind: run, outcome or state (of a node), decision, trigger, level, charge, policy or person. name: what tells it in the record, such as
    a decision's id, an execution or a node. at: epoch seconds, None where it has no moment.
    """

    kind: str
    name: str
    at: float | None
    text: str


class Execution(NamedTuple):
    """An execution as events name it, `run.gen.node.attempt`."""

    run_id: str
    generation: int
    node: str
    attempt: int

    @classmethod
    def parse(cls, text: str) -> Execution | None:
        """Return the execution that a text names; None where it names none, as `policy` does."""
        begins = text.startswith("task.")  # the run of an ordinary task, task.{id}
        parts = text.removeprefix("task.").split(".", 2)
        if len(parts) < 3:
            return None
        node, _, attempt = parts[2].rpartition(".")
        if not (node and parts[1].isdecimal() and attempt.isdecimal()):
            return None
        return cls(("task." if begins else "") + parts[0], int(parts[1]), node, int(attempt))

    def __str__(self) -> str:
        return f"{self.run_id}.{self.generation}.{self.node}.{self.attempt}"


def explain(engine: Engine, run_id: str, node: str | None = None, generation: int | None = None) -> list[Step]:
    """Return the steps that led to what a node, or without one a run, has come to, from the outcome back.

    generation: the newest unless said. Raises Unknown where there is no such run or node, Unavailable.
    """
    run = read.get_run(engine, run_id, generation)
    with read.open_record(engine) as connection:
        walk = _Walk(engine, connection, run)
        if node is None:
            return list(walk.of_run())
        return list(walk.of_node(node))


class _Walk:
    def __init__(self, engine: Engine, connection: Connection, run: read.RunView) -> None:
        self.connection = connection
        self.run = run
        self.nodes = {each.id: each for each in read.get_nodes(engine, run.run_id, run.generation)}
        spec = read.get_graph(engine, run.run_id, run.generation)
        self.graph = None if spec is None else Graph.model_validate_json(spec)
        of_run = (t.node.c.run_id == run.run_id) & (t.node.c.generation == run.generation)
        touched = select(t.node.c.node_id, t.node.c.decision, t.node.c.stop).where(of_run)
        self.touched = {row.node_id: row for row in connection.execute(touched)}

    # -- a run ------------------------------------------------------------------------------------------------------

    def of_run(self) -> Iterator[Step]:
        run = self.run
        cost = f"; it cost {_units(run.cost_micros)}" + (f" of {_units(run.budget)}" if run.budget is not None else "")
        if run.outcome is None:
            said = {"held": f"waits to be admitted: {run.reason}", "refused": f"was refused: {run.reason}"}.get(run.status)
            yield Step("run", run.run_id, run.finished_at, f"run {run.run_id} {said or f'is {run.status}{cost}'}")
        else:
            reason = f": {run.reason}" if run.reason and run.outcome != "succeeded" else ""
            yield Step("run", run.run_id, run.finished_at, f"run {run.run_id} is {run.outcome}{reason}{cost}")
        if run.outcome == "cancelled" or run.status == "cancelling":
            yield from self._by_person(("run.cancelling", "scope.cancelled"))
        elif run.outcome == "failed" and (first := self._first_bad()):
            yield from self.of_node(first)
        for found in self._decisions():
            yield from self._decision(found)

    def _first_bad(self) -> str | None:
        bad = [each for each in self.nodes.values() if each.required and each.outcome in ("failed", "timed_out")]
        return min(bad, key=lambda each: (each.finished_at or 0, each.id)).id if bad else None

    def _decisions(self) -> list[DecisionView]:
        of_run = (t.decision.c.run_id == self.run.run_id) & (t.decision.c.generation == self.run.generation)
        rows = self.connection.execute(select(t.decision).where(of_run).order_by(t.decision.c.number.desc())).mappings()
        return [view(dict(row)) for row in rows]

    # -- a node -----------------------------------------------------------------------------------------------------

    def of_node(self, name: str) -> Iterator[Step]:
        for _ in range(_STEPS_MAX):
            node = self.nodes.get(name)
            if node is None:
                raise Unknown(f"run {self.run.run_id} has no node {name!r}; `headgate show {self.run.run_id}` lists its nodes")
            yield Step("outcome" if node.outcome else "state", node.id, node.finished_at, self._outcome(node))
            if node.outcome != "upstream_failed" or (parent := self._guilty(node.id)) is None:
                yield from self._behind(node)
                return
            name = parent

    def _outcome(self, node: read.NodeView) -> str:
        name, cost = f"node {node.id}", f", for {_units(node.cost_micros)}" if node.cost_micros else ""
        as_ = f" as its variant {node.verdict!r}" if node.verdict else ""
        why = f": {node.reason}" if node.reason else ""
        if node.adopted is not None:
            return f"{name} succeeded{as_} in generation {node.adopted}, and was adopted"
        match node.outcome:
            case None if node.state == "running":
                return f"{name} is running{as_}, attempt {node.attempt}"
            case None:
                open_ = [parent for parent in self._parents(node.id) if self.nodes[parent].outcome is None]
                waits = f" and waits for {_listed(open_)}" if node.state == "pending" and open_ else ""
                will = f"; it is to run{as_}" if as_ else ""
                return f"{name} is {node.state}{waits}{will}"
            case "succeeded":
                declared = "" if node.verdict or self._decided(node) else " as it is declared"
                return f"{name} succeeded{as_ or declared} at attempt {node.attempt}{cost}"
            case "failed" | "timed_out":
                error = _error(node.error)
                how = "failed" if node.outcome == "failed" else "timed out"
                tries = f" after {node.attempt} attempts" if node.attempt > 1 else ""
                return f"{name} {how}{tries}{cost}{why}{f': {error}' if error else ''}"
            case "upstream_failed":
                return f"{name} did not run: what it needs did not succeed"
            case "skipped" if (node.reason or "").startswith(NOT_TAKEN):
                return f"{name} is on a branch that was not taken: {(node.reason or '').removeprefix(NOT_TAKEN)}"
            case outcome:
                return f"{name} was {outcome}{cost}{why}"

    def _decided(self, node: read.NodeView) -> str | None:
        row = self.touched.get(node.id)
        return row.decision if row is not None else None

    def _parents(self, node: str) -> tuple[str, ...]:
        parents = self.graph.by_id[node].parents() if self.graph is not None and node in self.graph.by_id else ()
        return tuple(parent for parent in parents if parent in self.nodes)

    def _guilty(self, node: str) -> str | None:
        """The parent that a node did not run for: the first that ended badly, a required one before the others."""
        bad = [self.nodes[parent] for parent in self._parents(node) if self.nodes[parent].outcome in BAD]
        order = {"failed": 0, "timed_out": 0, "cancelled": 1, "upstream_failed": 2}
        if not bad:
            return None
        return min(bad, key=lambda each: (not each.required, order[str(each.outcome)], each.finished_at or 0, each.id)).id

    def _behind(self, node: read.NodeView) -> Iterator[Step]:
        row = self.touched.get(node.id)
        if node.outcome == "cancelled" and row is not None and row.stop is not None:
            yield from self._by_person(("node.cancelling",), node.id)
            return
        if name := self._decided(node):
            found = self.connection.execute(select(t.decision).where(t.decision.c.id == name)).mappings().first()
            if found is not None:
                yield from self._decision(view(dict(found)), node.id)
            return
        if node.outcome == "cancelled":
            yield from self._stopped()
        elif node.outcome in ("failed", "skipped") and node.started_at is None and "budget" in (node.reason or ""):
            yield from self._level(node.finished_at)

    def _stopped(self) -> Iterator[Step]:
        """Why a node was cancelled that nobody named: its run was, or stopped at its first failure."""
        if self.run.outcome == "terminated_by_cost":
            for found in self._decisions():
                if found.action == "terminate":
                    yield from self._decision(found)
                    return
        if self.run.outcome == "cancelled" or self.run.status == "cancelling":
            yield from self._by_person(("run.cancelling", "scope.cancelled"))
        elif (first := self._first_bad()) is not None:
            yield from self.of_node(first)

    def _by_person(self, actions: tuple[str, ...], node: str | None = None) -> Iterator[Step]:
        """The line of the audit that says who did it."""
        targets = [self.run.run_id, f"run:{self.run.run_id}", "platform", f"tenant:{self.run.tenant}"]
        lines = select(t.audit).where(t.audit.c.action.in_(actions), t.audit.c.target.in_(targets)).order_by(t.audit.c.at.desc())
        for row in self.connection.execute(lines).mappings():
            said = json.loads(row["data"] or "{}")
            named = said.get("nodes") or []
            if node is not None and node not in named and len(named) == said.get("count"):
                continue  # it names all of its nodes, and this is none of them
            scope = "it" if row["target"] == self.run.run_id else f"everything of {row['target'].replace(':', ' ')}"
            why = f": {said['reason']}" if said.get("reason") else ""
            yield Step("person", row["id"], row["at"] / 1000, f"{row['actor'] or 'somebody'} cancelled {scope}{why} ({row['action']})")
            return

    # -- a decision, and what is behind it ------------------------------------------------------------------------

    def _decision(self, found: DecisionView, node: str | None = None) -> Iterator[Step]:
        own = next((change for change in (*found.plan, *(found.applied or ())) if change.node == node), None)
        what = _changed(own) if own is not None else _DECIDED.get(found.action, found.action)
        if own is None and found.plan:
            what += f" ({given_up(found.plan)})"
        seen = "observed only, nothing was done: " if found.observed else ""
        done = ", not applied yet" if found.is_open else ""
        because = f", because {own.reason}" if own is not None and own.reason else ""
        text = f"{seen}decision {found.number} was {what}{because}{done}: {found.reason}"
        yield Step("decision", found.id, found.at, text)
        yield from self._trigger(found)

    def _trigger(self, found: DecisionView) -> Iterator[Step]:
        execution = Execution.parse(found.cause) if found.cause else None
        told = f" [{', '.join(found.flags)}]" if found.flags else ""
        match found.trigger:
            case "admission":
                held, budget = _units(self.run.hold or 0), ""
                if self.run.budget is not None:
                    budget = f", and its own limit is {_units(self.run.budget)}"
                text = f"it was admitted with {held} for an estimate of {_units(self.run.estimate or 0)}{budget}{told}"
                yield Step("trigger", "admission", found.at, text)
                return
            case "gate":
                refused = execution.node if execution and found.cause not in self.nodes else found.cause
                text = f"the money did not cover node {refused or '?'} when it was to start{told}"
                yield Step("trigger", found.cause or "gate", found.at, text)
            case "level":
                yield Step("trigger", "level", found.at, f"the tenant had entered a level of its budget{told}")
            case "manual":
                yield Step("trigger", "manual", found.at, f"somebody had asked for a decision{told}")
            case _:
                yield Step("trigger", found.trigger, found.at, f"the beat had looked at the run{told}")
        yield from self._level(found.at, execution if found.trigger == "level" else None)

    def _level(self, at: float | None, cause: Execution | None = None) -> Iterator[Step]:
        """The level that the tenant was at by then, and the charge that had brought it there."""
        of_levels = t.event.c.run_id.is_(None) & t.event.c.type.in_(("level.entered", "level.left")) & (t.event.c.tenant == self.run.tenant)
        if at is not None:
            of_levels &= t.event.c.at <= round(at * 1000)
        newest = select(t.event.c.data).where(of_levels).order_by(t.event.c.epoch.desc(), t.event.c.seq.desc()).limit(50)
        left: set[tuple[str, str]] = set()
        for row in self.connection.execute(newest):
            event = json.loads(row.data)
            key = (str(event["period"]), str(event["level"]))
            if event["t"] == "level.left":
                left.add(key)
            elif key not in left and (cause is None or event["cause"] == str(cause)):
                break
        else:
            return
        rate = f"{int(event['rate_ppm']) / 10_000:.4g} %"
        text = f"tenant {self.run.tenant} had entered {event['level']} of {event['period']}, for the {_th(int(event['entry']))} time: "
        text += f"{_units(event['committed'])} of {_units(event['limit'])} were committed ({rate})"
        yield Step("level", f"{self.run.tenant}.{event['period']}.{event['level']}.{event['entry']}", int(event["at"]) / 1000, text)
        yield from self._charge(str(event["cause"]), int(event["at"]))

    def _charge(self, cause: str, at_ms: int) -> Iterator[Step]:
        execution = Execution.parse(cause)
        if execution is None:
            changed = (t.audit.c.tenant == self.run.tenant) & (t.audit.c.action == "policy.changed") & (t.audit.c.at <= at_ms)
            row = self.connection.execute(select(t.audit).where(changed).order_by(t.audit.c.at.desc()).limit(1)).mappings().first()
            who = f"{row['actor']} had changed the policy of tenant {self.run.tenant}" if row else f"the cause was: {cause}"
            yield Step("policy", cause, at_ms / 1000, who)
            return
        of_execution = (
            (t.ledger.c.run_id == execution.run_id)
            & (t.ledger.c.generation == execution.generation)
            & (t.ledger.c.node_id == execution.node)
            & (t.ledger.c.attempt == execution.attempt)
            & (t.ledger.c.at <= at_ms)
        )
        newest = select(t.ledger).where(of_execution).order_by(t.ledger.c.at.desc(), t.ledger.c.id)
        entries = [dict(row) for row in self.connection.execute(newest).mappings()]
        last = [entry for entry in entries if entry["at"] == entries[0]["at"] and entry["amount"]]
        what = " and ".join(_entry(entry) for entry in last) or "something was set aside"
        where = "ordinary task" if execution.run_id.startswith("task.") else f"run {execution.run_id}: node"
        text = f"{what} for {where} {execution.node}, attempt {execution.attempt}, had tripped it"
        yield Step("charge", cause, (entries[0]["at"] if entries else at_ms) / 1000, text)


def given_up(plan: tuple[Change, ...]) -> str:
    """Return what a plan changes, for a person: "a, b skipped; c as 'one'; d, e as they are"."""
    by: dict[str, list[str]] = {}
    for change in plan:
        by.setdefault(_became(change), []).append(change.node)
    return "; ".join(f"{_listed(sorted(nodes))} {became}" for became, nodes in by.items())


def _became(change: Change) -> str:
    match change.change:
        case "skip":
            return "skipped"
        case "cancelled":
            return "revoked"
        case "as_is":
            return "as declared"
        case _:
            return f"as {change.change!r}"


def _changed(change: Change) -> str:
    saved = f", which saves {_units(change.saving)}" if change.saving > 0 else ""
    match change.change:
        case "skip":
            return f"to skip it{saved}"
        case "as_is":
            return "to let it run as it is declared again"
        case "cancelled":
            return f"to revoke it{saved}"
        case _:
            return f"to run it as {change.change!r} ({change.type}){saved}"


def _entry(entry: Mapping[str, Any]) -> str:
    did = {
        "settle": "charged",
        "waste": "charged as waste",
        "reserve": "set aside",
        "extend": "set aside in addition",
        "adjust": "adjusted",
    }
    kind = f" of {entry['category']}" if entry["category"] else ""
    return f"{_units(entry['amount'])}{kind} {did.get(entry['kind'], entry['kind'])}"


def _units(micros: Any) -> str:
    amount = int(micros)
    return f"-{format_units(-amount)}" if amount < 0 else format_units(amount)


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _error(error: Any) -> str | None:
    if not error:
        return None
    text = f"{error.get('type', 'Error')}: {error.get('message', '')}" if isinstance(error, Mapping) else str(error)
    return text.splitlines()[0] if text.strip() else None


def _th(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"
