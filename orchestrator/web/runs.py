"""The Runs page: which runs there are, and how far those in flight have come."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator import keys
from orchestrator.store import read
from orchestrator.store.read import RunView
from orchestrator.store.run_search import OUTCOMES, STATES, Cursor, Wanted, graph_strips, search_runs, state_of
from orchestrator.store.tables import LIVE
from orchestrator.web.page import UNREACHABLE, Data, Shell
from tenancy.link import Link

NODE_OUTCOMES = ("succeeded", "failed", "timed_out", "skipped", "cancelled", "upstream_failed")
_AGO = re.compile(r"([0-9]{1,4})([mhd])")
_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


class RunsPage(Shell):
    """GET /runs."""

    title, tab, script = "Runs", "runs", "runs.js"


class RunsData(Data):
    """GET /runs/data: a page of runs by the filters state (several), tenant, graph, label (name or name=value), q, since, until, before."""

    what = "runs"

    def reading(self, *_: str) -> Callable[[], Any]:
        """Return what reads the page."""
        wanted = self._wanted()
        before = self.text("before")
        cursor = None if before is None else Cursor.parse(before)
        limit = self.number("limit") or 50
        engine, link = self.application.engine, self.application.link

        def tell() -> dict[str, Any]:
            found = search_runs(engine, wanted, cursor, limit)
            paused = {pause.scope for pause in read.pauses(engine)}
            done = progress(link, found.runs)
            return {
                "runs": [row(run, paused, done.get((run.run_id, run.generation))) for run in found.runs],
                "after": None if found.after is None else str(found.after),
                "counts": found.counts,
                "partial": found.partial,
                "now": time.time(),
            }

        return tell

    def _wanted(self) -> Wanted:
        states = tuple(self.get_arguments("state"))
        for state in states:
            if state not in STATES:
                raise ValueError(f"no run is {state!r}; a run is one of {', '.join(STATES)}")
        label = self.text("label")
        name, equals, value = (label or "").partition("=")
        now = time.time()
        return Wanted(
            states=states,
            tenant=self.text("tenant"),
            graph=self.text("graph"),
            label=(name, value if equals else None) if label else None,
            words=self.text("q"),
            since=moment(self.text("since"), now),
            until=moment(self.text("until"), now),
        )


class StripsData(Data):
    """GET /runs/strips: the newest runs of each graph."""

    what = "strips of graphs"

    def reading(self, *_: str) -> Callable[[], Any]:
        """Return what reads them."""
        tenant, engine = self.text("tenant"), self.application.engine
        return lambda: {"graphs": [{"graph": strip.graph, "runs": strip.runs} for strip in graph_strips(engine, tenant)]}


def moment(text: str | None, now: float) -> float | None:
    """Return the time (epoch seconds) that `text` says: itself, or as long before now as `15m`, `24h` or `7d`. Raises ValueError."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _SECONDS[ago[2]]
    if re.fullmatch(r"[0-9]{1,11}", text):
        return float(text)
    raise ValueError(f"a time is epoch seconds or as long ago as 15m, 24h or 7d, not {text!r}")


def is_held(link: Link, run: RunView) -> bool:
    """Say whether the cost agent holds a run in flight until somebody approves it; False while Redis is away."""
    if run.status not in LIVE:
        return False
    try:
        return bool(link.read("HGET", keys.of_run("run", f"{run.run_id}.{run.generation}"), "waits") == "hold")
    except UNREACHABLE:
        return False


def progress(link: Link, runs: Iterable[RunView]) -> dict[tuple[str, int], dict[str, int]]:
    """Return nodes by outcome, and their `total`, of the runs in flight that Redis knows; nothing while it is away."""
    live = [(run.run_id, run.generation) for run in runs if run.status in LIVE]
    if not live:
        return {}
    try:
        with link.client.pipeline(transaction=False) as pipe:
            for run_id, generation in live:
                pipe.hmget(keys.of_run("run", f"{run_id}.{generation}"), ["total", *(f"n:{outcome}" for outcome in NODE_OUTCOMES)])
            rows = pipe.execute()
    except UNREACHABLE:
        return {}
    names = ("total", *NODE_OUTCOMES)
    return {
        key: {name: int(value or 0) for name, value in zip(names, row, strict=True)} for key, row in zip(live, rows, strict=True) if row[0]
    }


def row(run: RunView, paused: Iterable[str], done: Mapping[str, int] | None) -> dict[str, Any]:
    """Return a run as pages have it: times in epoch seconds, amounts in micros."""
    counts = {name: count for name, count in (done or run.counts).items() if name in NODE_OUTCOMES and count}
    state = state_of(run.status, run.outcome)
    return {
        "id": run.run_id,
        "gen": run.generation,
        "tenant": run.tenant,
        "key": run.key,
        "graph": run.graph,
        "state": state,
        "over": state in OUTCOMES or state == "refused",
        "paused": [scope for scope in (f"run:{run.run_id}.{run.generation}", f"tenant:{run.tenant}", "platform") if scope in paused],
        "reason": run.reason,
        "labels": dict(run.labels),
        "submitted": run.submitted_at,
        "started": run.started_at,
        "finished": run.finished_at,
        "total": (done or {}).get("total") or run.total,
        "counts": counts,
        "cost": run.cost_micros,
        "budget": run.budget,
        "estimate": run.estimate,
        "priority": run.priority,
    }
