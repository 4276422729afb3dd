"""The Schedules page: when each runs next, what became of its last times, how late they were; and beat, which looks after them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.pulse import is_late, pulse
from orchestrator.store.schedules import ScheduleView, TickView, newest_ticks, schedules
from orchestrator.web.page import UNREACHABLE, Data, Shell
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
            shown = found[:SHOWN]
            times = newest_ticks(engine, [(each.tenant, each.name) for each in shown], TICKS)
            rows = [_row(each, times[each.tenant, each.name], now) for each in shown]
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


def _row(schedule: ScheduleView, times: Sequence[TickView], now: float) -> dict[str, Any]:
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
        # How long after its time the run of a tick was submitted.
        "ticks": [
            {**asdict(tick), "lag_s": None if tick.submitted_at is None else max(0.0, tick.submitted_at - tick.at)} for tick in times
        ],
    }
