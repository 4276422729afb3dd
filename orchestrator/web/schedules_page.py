"""The Schedules page: when each runs next, what became of its last times, how late they were; and beat, which looks after them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine

from orchestrator.pulse import is_late, pulse
from orchestrator.store import read
from orchestrator.store.schedules import ScheduleView, TickView, schedules, ticks
from orchestrator.web.page import UNREACHABLE, Data, Shell
from tenancy.errors import Unknown
from tenancy.link import Link

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
        tenant, engine, link = self.text("tenant"), self.application.engine, self.application.link
        entries = self.application.capp.conf.beat_schedule

        def tell() -> dict[str, Any]:
            found, now = schedules(engine, tenant), time.time()
            rows = [_row(engine, each, now) for each in found[:SHOWN]]
            return {"schedules": rows, "left_out": max(0, len(found) - SHOWN), "now": now, "beat": beat(link, entries)}

        return tell


def beat(link: Link, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return each of beat's entries with how it was last carried out, and the beats that live or did lately; None while Redis is away."""
    try:
        found = pulse(link)
    except UNREACHABLE:
        return None
    rows = []
    for name, entry in entries.items():
        every_s, last = float(entry["schedule"]), found.entries.get(entry["task"])
        row = {"name": name, "task": entry["task"], "every_s": every_s, "last": None, "late": False}
        if last is not None:
            row |= {"last": asdict(last), "late": is_late(found.now, last.at, last.took_s, every_s)}
        rows.append(row)
    shortest = min((row["every_s"] for row in rows), default=0.0)
    beats = [{"name": name, "at": at, "alive": not is_late(found.now, at, 0.0, shortest)} for name, at in found.beats]
    return {"entries": rows, "beats": beats, "now": found.now}


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
