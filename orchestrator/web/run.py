"""The page of a run, and what it reads: its graph, its nodes, one node, events, decisions, everything as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine

from orchestrator.store import read
from orchestrator.store.decisions import DecisionView, list_decisions
from orchestrator.store.position import Position
from orchestrator.store.read import RunView
from orchestrator.store.run_nodes import get_node, last_event, node_columns, node_events, node_money, waits_s
from orchestrator.store.run_search import generations
from orchestrator.web import run_view
from orchestrator.web.drawings import Drawings, nodes_of
from orchestrator.web.page import Data, Shell
from orchestrator.web.runs import is_held, progress, row

EVENTS_SHOWN = 200

RUN = r"/run/([0-9a-z]{26})"


class RunPage(Shell):
    """GET /run/{id}: `g` is the generation, the newest unless said."""

    title, tab, script = "Run", "runs", "run.js"

    async def facts(self, *path: str) -> dict[str, Any]:
        """Return the run and what may be done; 404 where there is no such run."""
        run = await self.ask("run", read.get_run, self.application.engine, path[0])
        return {"title": f"{run.graph} {run.run_id}", "run": run.run_id}


class OfRun(Data):
    """Reads something of a run: of its newest generation, or that of the argument `g`."""

    def reading(self, *path: str) -> Callable[[], Any]:
        """Return what reads it."""
        generation, engine = self.number("g"), self.application.engine
        tell = self.telling()
        return lambda: tell(engine, read.get_run(engine, path[0], generation))

    def telling(self) -> Callable[[Engine, RunView], Any]:
        """Return what is called in a thread with the run; arguments are read here. Raises ValueError."""
        raise NotImplementedError


class RunSummary(OfRun):
    """GET /run/{id}/summary: the run, its generations, its costs, how long its nodes waited."""

    what = "run"

    def telling(self) -> Callable[[Engine, RunView], Any]:
        """Return what reads it."""
        link = self.application.link

        def tell(engine: Engine, run: RunView) -> dict[str, Any]:
            paused = {pause.scope for pause in read.pauses(engine)}
            done = progress(link, [run]).get((run.run_id, run.generation))
            mean, longest = waits_s(engine, run.run_id, run.generation)
            return {
                **row(run, paused, done),
                "held": is_held(link, run),
                "generations": generations(engine, run.run_id),
                "costs": read.run_cost(engine, run.run_id, run.generation),
                "hold": run.hold,
                "floor": run.floor,
                "digest": run.digest,
                "wait_mean": mean,
                "wait_longest": longest,
                "now": time.time(),
            }

        return tell


class RunGraph(OfRun):
    """GET /run/{id}/graph: the drawing of the graph that it was submitted with, made at first view and kept."""

    what = "graph of a run"

    def telling(self) -> Callable[[Engine, RunView], Any]:
        """Return what draws it."""
        drawings: Drawings = self.application.drawings
        return drawings.of


class RunNodes(OfRun):
    """GET /run/{id}/nodes: the states of all nodes as columns, {same: true} where nothing happened since `since`."""

    what = "nodes of a run"

    def telling(self) -> Callable[[Engine, RunView], Any]:
        """Return what reads them."""
        since, drawings = self.text("since", 50), self.application.drawings

        def tell(engine: Engine, run: RunView) -> dict[str, Any]:
            # Read before the nodes: what happens meanwhile is told again, and never left out.
            last = last_event(engine, run.run_id, run.generation)
            over = run.status in ("ended", "refused")
            at = f"{last}{'.over' if over else ''}"
            if since == at:
                return {"same": True, "over": over, "now": time.time()}
            ids = drawings.of(engine, run)["ids"]
            found = run_view.columns(ids, node_columns(engine, run.run_id, run.generation))
            return {**found, "at": at, "over": over, "now": time.time()}

        return tell


class RunNode(OfRun):
    """GET /run/{id}/node?id=: one node with everything that is known of it."""

    what = "node of a run"

    def telling(self) -> Callable[[Engine, RunView], Any]:
        """Return what reads it."""
        wanted = self.text("id", 500)
        if wanted is None:
            raise ValueError("name a node by its id")
        tasks = self.application.events

        def tell(engine: Engine, run: RunView) -> dict[str, Any]:
            spec = {str(node["id"]): node for node in nodes_of(engine, run)}
            node = get_node(engine, run.run_id, run.generation, wanted, spec.get(wanted))
            of_map = spec.get(wanted) or spec.get(wanted.rpartition(".")[0]) or {}
            events = node_events(engine, run.run_id, run.generation, wanted)
            entries, usage = node_money(engine, run.run_id, run.generation, wanted)
            touched = [
                decision_json(each)
                for each in list_decisions(engine, run=run.run_id, generation=run.generation)
                if any(change.node == wanted for change in each.plan)
            ]
            task_id = f"{run.run_id}.{run.generation}.{wanted}"
            shown = run_view.node_json(node, of_map, events, entries, usage)
            return {**shown, "decisions": touched, "task_id": task_id if task_id in tasks.state.tasks else None}

        return tell


class RunEvents(OfRun):
    """GET /run/{id}/events: events after the position `after`, oldest first."""

    what = "events of a run"

    def telling(self) -> Callable[[Engine, RunView], Any]:
        """Return what reads them."""
        after = self.text("after", 50)
        start = Position(0, 0) if after is None else Position.parse(after)

        def tell(engine: Engine, run: RunView) -> dict[str, Any]:
            found = read.get_events(engine, run.run_id, run.generation, after=start, limit=EVENTS_SHOWN + 1)
            shown = found[:EVENTS_SHOWN]
            more = str(shown[-1].position) if len(found) > EVENTS_SHOWN else None
            return {"events": [run_view.event_json(event) for event in shown], "after": more}

        return tell


class RunDecisions(OfRun):
    """GET /run/{id}/decisions: what the cost agent decided about it, newest first."""

    what = "decisions about a run"

    def telling(self) -> Callable[[Engine, RunView], Any]:
        """Return what reads them."""
        return lambda engine, run: {
            "decisions": [decision_json(each) for each in reversed(list_decisions(engine, run=run.run_id, generation=run.generation))]
        }


class RunRecord(OfRun):
    """GET /run/{id}/record: what `headgate show --json` prints."""

    what = "record of a run"

    def telling(self) -> Callable[[Engine, RunView], Any]:
        """Return what reads it."""

        def tell(engine: Engine, run: RunView) -> Mapping[str, Any]:
            shown = read.show_json(engine, run.run_id, run.generation)
            return {**shown, "nodes": [{**node, "error": run_view.error_of(node["error"])} for node in shown["nodes"]]}

        return tell


def decision_json(each: DecisionView) -> dict[str, Any]:
    """Return a decision as pages have it."""
    plan = [{"type": c.type, "node": c.node, "change": c.change, "reason": c.reason, "saving": c.saving} for c in each.plan]
    names = (
        "id",
        "tenant",
        "number",
        "at",
        "trigger",
        "action",
        "reason",
        "projected",
        "cause",
        "observed",
        "applied_at",
        "saving",
        "run_id",
    )
    shown = {name: getattr(each, name) for name in names}
    more = {"confidence": each.confidence_permille, "concurrency": each.concurrency_percent, "policy_version": each.policy_version}
    return {**shown, **more, "flags": list(each.flags), "plan": plan, "applied": None if each.applied is None else len(each.applied)}
