"""The Schedules page: when each runs next, what became of its last times, and how late they were."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine

from orchestrator.store import read
from orchestrator.store.schedules import ScheduleView, TickView, schedules, ticks
from orchestrator.web.page import Data, Shell
from tenancy.errors import Unknown

SHOWN = 200
TICKS = 10


class SchedulesPage(Shell):
    """GET /schedules."""

    title, tab, script = "Schedules", "schedules", "schedules.js"


class SchedulesData(Data):
    """GET /schedules/data: schedules, of one tenant where named, with their newest times."""

    what = "schedules"

    def reading(self, *_: str) -> Callable[[], Any]:
        """Return what reads them."""
        tenant, engine = self.text("tenant"), self.application.engine

        def tell() -> dict[str, Any]:
            found, now = schedules(engine, tenant), time.time()
            return {"schedules": [_row(engine, each, now) for each in found[:SHOWN]], "left_out": max(0, len(found) - SHOWN), "now": now}

        return tell


def _row(engine: Engine, schedule: ScheduleView, now: float) -> dict[str, Any]:
    terms = schedule.terms
    return {
        "tenant": schedule.tenant,
        "name": schedule.name,
        "graph": schedule.graph,
        "when": terms.cron if terms.cron is not None else f"every {terms.every_s} s",
        "timezone": terms.timezone,
        "overlap": terms.overlap,
        "catch_up": terms.catch_up,
        "paused": schedule.paused,
        "next": schedule.next_at,
        # Beat looks every few seconds: what has been due for longer says that it does not.
        "overdue_s": None if schedule.next_at is None else max(0.0, now - schedule.next_at),
        "ticks": [{**asdict(tick), "lag_s": _lag_s(engine, tick)} for tick in ticks(engine, schedule.tenant, schedule.name, TICKS)],
    }


def _lag_s(engine: Engine, tick: TickView) -> float | None:
    """How long after its time the run of a tick was submitted."""
    if tick.run_id is None:
        return None
    try:
        return max(0.0, read.get_run(engine, tick.run_id, 1).submitted_at - tick.at)
    except Unknown:
        return None
