"""Running a graph in this process on the plain model: the same outcomes and charges, no Redis, no workers, no waiting."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ulid import ULID

from cost.memory import Key
from cost.meter import Execution, metering
from cost.middleware import write_cats
from cost.money import check_micros, parse_units
from cost.plan import SKIP
from orchestrator.attempts import Fatal, Retryable
from orchestrator.expansion import Expansion, NothingGathered, NotMappable, item_id, items_of, listed, whose
from orchestrator.graph import Graph
from orchestrator.graph.references import MISSING, references, substitute
from orchestrator.graph.scheduled import refuse_unscheduled
from orchestrator.model import Model, RunState
from orchestrator.node_task import NO_RETRY, describe
from orchestrator.objects import Directory
from orchestrator.refusal import refusal
from orchestrator.registry import registry
from orchestrator.results import NotStorable, ResultStore
from orchestrator.settings import Settings
from orchestrator.splice import checked, gathered, sinks, spliced
from orchestrator.submission import Submission
from tenancy.errors import GraphInvalid, HeadgateError, RunFailed, Unknown
from tenancy.policy import Policy

INCARNATION: Final = "local"
POOL: Final = "default"
SLOT_MS: Final = 1_000
"""What a message is expected to take; with one tenant it orders nothing."""


class LocalRun:
    """A run that ended in this process; reads as a `RunHandle` does after `wait`."""

    def __init__(self, model: Model, key: Key, graph: Graph) -> None:
        self._model = model
        self._state: RunState = model.runs[key]
        self._graph = graph
        self.run_id, self.generation = key

    def __repr__(self) -> str:
        return f"<local run {self.run_id} {self.outcome}>"

    @property
    def outcome(self) -> str:
        """succeeded, degraded or failed."""
        return self._state.outcome

    @property
    def cost_micros(self) -> int:
        """What all executions were charged."""
        return sum(self.cost_by_category.values())

    @cached_property
    def cost_by_category(self) -> dict[str, int]:
        """Micros by category; categories that nothing was charged for are absent."""
        return _by_category(self._charges())

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The run's event log, oldest first, with the fields of docs/protocol.md."""
        return [event for event in self._model.events if event.get("run") == self.run_id]

    @cached_property
    def nodes(self) -> list[dict[str, Any]]:
        """Every node in the graph's order, then those that others became, with the fields of `headgate show --json`.

        Times are the model's, which jumps over delays.
        """
        return [self._node(node_id) for node_id in dict.fromkeys([*self._graph.by_id, *self._state.nodes])]

    def result(self, node: str | None = None) -> Any:
        """Return what a node returned; without `node` that of the graph's only sink.

        Raises RunFailed with outcome, node and cause when there is none, Unknown for a node that the graph has not, HeadgateError when
        the graph has several sinks.
        """
        wanted = node or self._graph.sink
        it = self._state.nodes.get(wanted)
        if it is None:
            raise Unknown(f"graph {self._graph.name!r} has no node {wanted!r}")
        if it.result is None:
            fault = json.loads(it.fault) if it.fault else None
            ended = next(event for event in self.events if event["t"] == "node.ended" and event["node"] == wanted)
            cause = f"{fault['type']}: {fault['message']}" if fault else ended.get("reason") or it.state
            raise RunFailed(self.outcome, wanted, cause)
        return json.loads(it.result)

    def _charges(self, node: str | None = None) -> list[dict[str, str]]:
        return [event["cats"] for event in self.events if event["t"] == "money.settled" and node in (None, event["node"])]

    def _node(self, node_id: str) -> dict[str, Any]:
        it, node = self._state.nodes[node_id], self._graph.by_id[whose(node_id, self._graph.by_id)]
        own = [event for event in self.events if event.get("node") == node_id]
        due = [event for event in self.events if event["t"] == "node.due" and node_id in event["nodes"]]
        ended = next(event for event in own if event["t"] == "node.ended")
        began = [event for event in own if event["t"] == "node.began"]
        cost = _by_category(self._charges(node_id))
        return {
            "id": node_id,
            "task": json.loads(it.spec).get("task", node.task),
            "required": it.ctl["required"],
            "outcome": it.state,
            "reason": ended.get("reason"),
            "attempt": it.claims,
            "fails": it.fails,
            "worker": INCARNATION if began else None,
            "verdict": it.verdict or None,
            "queued_at": due[0]["at"] / 1000 if due else None,
            "started_at": began[-1]["at"] / 1000 if began else None,
            "finished_at": ended["at"] / 1000,
            "cost_micros": sum(cost.values()),
            "cost": cost,
            "error": json.loads(it.fault) if it.fault else None,
        }


def run_local(graph: Graph, *, budget: str | int | None = None, tenant: str = "default") -> LocalRun:
    """Run a graph to its end in this process and return the run, whatever its outcome.

    Tasks come from the registry and run one after the other; asynchronous ones by `asyncio.run`, so call this outside an event loop.
    A node that fails is tried again as often as on workers, at once: the clock of the model jumps. `timeout_s` is not enforced here.

    :param budget: the most that the run may cost: units as text ("0.06") or whole micros.
    :param tenant: who pays, with the default policy and nothing spent yet.

    Raises GraphInvalid, and BudgetRefused when the budget does not cover the required nodes.
    """
    budget_micros = parse_units(budget) if isinstance(budget, str) else None if budget is None else check_micros(budget)
    resolved = graph.resolved(registry)
    resolved.check(registry=registry, served=registry.names())
    refuse_unscheduled(resolved)
    settings = Settings.load()
    worker = _Worker(Submission.of(resolved, settings), tenant, int(settings.retry_delay_max_s * 1000))
    worker.start(budget_micros)
    worker.work()
    return LocalRun(worker.model, worker.key, resolved)


@dataclass(frozen=True)
class _Worker:
    """Producer, launcher and the only worker of one local run."""

    submission: Submission
    tenant: str
    retry_delay_max_ms: int

    @cached_property
    def model(self) -> Model:
        model = Model(now_ms=time.time_ns() // 1_000_000)
        model.account(self.tenant, Policy().limit_per_day_micros, Policy().max_concurrent_runs)
        model.enroll(INCARNATION, 0, {"name": INCARNATION, "pools": [POOL]})
        return model

    @cached_property
    def key(self) -> Key:
        return str(ULID()).lower(), 1

    @cached_property
    def results(self) -> ResultStore:
        # Nothing leaves this process, so every result stays in the model, whatever its size.
        return ResultStore(Directory(Path()), 2**62)

    def start(self, budget_micros: int | None) -> None:
        """Admit, plan down where the money is short, load and launch."""
        # This process runs every task in every pool, and has time for one run: nothing but money can stand in its way.
        want = {**self.submission.want(budget_micros), "pools": [], "roots": {}, "tasks": []}
        reply = self.model.admit(*self.key, self.tenant, json.dumps(want))
        if reply[0] == "refused":
            raise refusal(self.tenant, self.submission, *reply[1:])
        down = self.submission.planned_down(int(reply[1]))
        choices = down.choices if down else {}
        for rows in self.submission.rows(choices):
            self.model.load(*self.key, [(*row[:5], str(row[5])) for row in rows], {})
        skipped = [node for node, choice in choices.items() if choice == SKIP]
        self.model.skip(*self.key, "given up at admission: the budget is short", skipped)
        self.finish_cascade()
        self.model.launch(*self.key, int(down is not None), 1, self.submission.roots())
        self.publish([node for node, it in self.state.nodes.items() if it.state == "due"])

    @property
    def state(self) -> RunState:
        return self.model.runs[self.key]

    def publish(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            priority = self.submission.info[whose(node, self.submission.info)].priority
            self.model.put(node, self.tenant, priority, POOL, SLOT_MS, self.state.task_id(node), 0, 0)

    def work(self) -> None:
        """Take messages until the run has ended."""
        while self.state.status != "ended":
            self.model.now_ms = max(self.model.now_ms, time.time_ns() // 1_000_000)
            delivery = self.model.pop(INCARNATION, POOL, 0)
            if delivery is not None:
                self.deliver(delivery.tag, delivery.payload, delivery.number)
            else:
                self.model.now_ms = min(self.model.delayed.values())

    def deliver(self, tag: str, node: str, number: int) -> None:
        row = self.model.begin(*self.key, node, INCARNATION, tag, number, INCARNATION)
        if row[0] == "run":
            grows = row[6] if len(row) > 6 else ""
            self.execute(node, attempt=row[1], spec=json.loads(row[2]), verdict=row[3], fails=row[4], grows=grows)
        elif row[0] == "refused":
            self.publish([*row[3], *self.finish_cascade()])
        self.model.ack(INCARNATION, tag, number)

    def finish_cascade(self) -> list[str]:
        """Write every fate that is sealed; return the nodes that became due by it."""
        due: list[str] = []
        unwritten = 1
        while unwritten == 1:
            unwritten, *found = self.model.cascade(*self.key, 200)
            due += found
        if unwritten:
            self.model.revoke(*self.key, "cancelled", self.state.stopped, list(self.state.nodes))
        return due

    def execute(self, node: str, *, attempt: int, spec: dict[str, Any], verdict: str, fails: int, grows: str) -> None:
        """Run one attempt, and record and charge what came of it."""
        run_id, generation = self.key
        grown: Expansion | None = None
        result, fault, outcome, delay_ms = "", "", "succeeded", NO_RETRY
        with metering(Execution(run_id, generation, node, attempt, self.tenant)) as usage:
            started, began = time.process_time(), time.monotonic()
            try:
                value = self.grow(node, spec, verdict, grows) if grows else self.call(spec, verdict)
                if isinstance(value, Graph):
                    value = self.splice(node, value, spec)
                if isinstance(value, Expansion):
                    grown = value
                else:
                    result = self.results.encode(value, run_id, generation, node, attempt)
            except (_NoInput, NothingGathered) as absent:
                outcome, fault = "skipped", str(absent)
            except (NotStorable, NotMappable, GraphInvalid, Fatal) as wrong:
                outcome, fault = "failed", describe(wrong)
            except Retryable as again:
                after_ms = min(self.retry_delay_max_ms, 1000 * 2 ** (fails + 1)) if again.after_s is None else int(again.after_s * 1000)
                outcome, fault, delay_ms = "failed", describe(again), after_ms
            except Exception as error:  # noqa: BLE001 - whatever the user's function raises is the node's outcome
                outcome, fault, delay_ms = "failed", describe(error), min(self.retry_delay_max_ms, 1000 * 2 ** (fails + 1))
            usage.close(*(() if grows else (max(0.0, time.process_time() - started), time.monotonic() - began)))
        cats = write_cats(usage.by_category())
        if grown is not None:
            told = grown.told(grown.rows)
            reply = self.model.expand(*self.key, node, attempt, INCARNATION, told, 0, grown.rows, grown.fragments, cats)
        else:
            reply = self.model.finish(*self.key, node, attempt, INCARNATION, outcome, result, fault, cats, delay_ms)
        self.model.settle(*self.key, node, attempt, cats, "local")
        if reply[0] == "done":
            self.publish([*reply[2:], *self.finish_cascade()])

    def call(self, spec: dict[str, Any], verdict: str) -> Any:
        """Resolve references and call the function of the node, or of the variant that was chosen for it."""
        item = spec.get("item", MISSING)
        spec = json.loads(self.state.nodes[spec["of"]].spec) if "of" in spec else spec
        chosen = spec.get("variants", {}).get(verdict, {})
        params = {**spec["params"], **chosen.get("params", {})}
        results = self.results_of(params)
        task = chosen.get("task") or spec["task"]
        definition = registry.get(task)
        if definition is None:
            raise HeadgateError(f"this process has no task {task!r}; import the module that defines it")
        value = definition.function(**substitute(params, results, item))
        return asyncio.run(value) if definition.is_async else value

    def results_of(self, params: dict[str, Any]) -> dict[str, Any]:
        wanted = {reference.node: self.state.nodes[reference.node] for reference in references(params)}
        results = {node: json.loads(it.result) for node, it in wanted.items() if it.result is not None}
        for reference in references(params):
            if reference.bare and results.get(reference.node, MISSING) is MISSING:
                raise _NoInput(f"its parent {reference.node!r} has no result")
        return results

    def grow(self, node: str, spec: dict[str, Any], verdict: str, grows: str) -> Any:
        """Return what a node becomes, or what that came to."""
        ctl = self.state.nodes[node].ctl
        if grows == "gather" and "source" in ctl:
            graph = Graph.parse(ctl["source"])
            results = {id_: json.loads(result) for id_ in sinks(graph) if (result := self.state.nodes[id_].result) is not None}
            try:
                return gathered(node, graph, results)
            except NothingGathered as nothing:
                if ctl["required"]:
                    raise Fatal(str(nothing)) from None
                raise
        if grows == "gather":
            ids = [item_id(node, index) for index in range(ctl["gathers"])]
            return [json.loads(result) for id_ in ids if (result := self.state.nodes[id_].result) is not None]
        items = listed(node, spec["map"]["list"], spec["map"]["most"], self.results_of({"map": spec["map"]["list"]}))
        return items_of(node, spec, items, lambda _, text: text, verdict) if items else []

    def splice(self, node: str, graph: Graph, spec: dict[str, Any]) -> Expansion:
        """Return what a node becomes by a graph that its task returned."""
        spec = json.loads(self.state.nodes[spec["of"]].spec) if "of" in spec else spec
        depth, required = int(spec.get("depth", 0)) + 1, bool(self.state.nodes[node].ctl["required"])
        found = checked(node, graph, registry, registry.names(), depth)
        source = found.canonical().decode()
        priority = self.submission.priority
        return spliced(node, found, Settings.load(), priority, required=required, strict=False, depth=depth, source=source)


class _NoInput(Exception):
    """A bare reference to a parent without a result: the (optional) node is skipped with it."""


def _by_category(charges: Sequence[dict[str, str]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for cats in charges:
        for category, micros in cats.items():
            total[category] = total.get(category, 0) + int(micros)
    return total
