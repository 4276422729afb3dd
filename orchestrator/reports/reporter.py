"""What beat calls: makes the reports that are due, each once, and writes the files of those that were made.

A report is made when the recorder keeps it, under its scope and period: whoever else made the same finds it there. Files and notices
come from what is kept, so they say the same whoever writes them, and whenever.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from cost.period import MS_PER_DAY, day_of
from orchestrator.artifacts import place
from orchestrator.artifacts.file import write_json, write_text
from orchestrator.recorder.ask import answer_to, append_request
from orchestrator.reports.page import page
from orchestrator.reports.period import Period, due
from orchestrator.reports.platform_report import SCOPE, platform_report
from orchestrator.reports.tenant_report import read_report, scope_of
from orchestrator.schedules.lease import Lease
from orchestrator.settings import Settings
from orchestrator.store import report_rows as rows
from tenancy.errors import Fenced, Unavailable
from tenancy.link import Link

log = logging.getLogger("headgate.reports")

DAYS_BACK, MONTHS_BACK = 31, 2
"""How far back reports are made up for that nobody made: as after an outage."""

PASS_S = 5.0
"""No report is begun later than this in a pass; what is left, the next one does."""

ASKED_AT_ONCE = 20
"""Reports that the recorder is given together: it takes one commit for all of them."""

FILES_AT_ONCE = 200


@dataclass
class Made:
    """What a pass did: reports that are kept now, and files that were written."""

    reports: int = 0
    files: int = 0


class Reporter:
    """Safe to run at any time, several at once. Raises Unavailable, Fenced and OSError; the next pass goes on."""

    def __init__(self, link: Link, engine: Engine, settings: Settings, clock: Callable[[], int] | None = None) -> None:
        self.link = link
        self.engine = engine
        self.settings = settings
        self._now_ms = clock or link.now_ms
        # What this process knows to be done, so that it does not look each time.
        self._idle: set[tuple[str, str]] = set()
        self._written: set[str] = set()

    def tick(self) -> Made:
        """Make what is due and write what is missing. A pass that finds another at work does nothing."""
        made, lease = Made(), Lease(self.link, "reports")
        if not lease.hold():
            return made
        try:
            self.make(made, lease)
            self.write(made)
        finally:
            with suppress(Unavailable, Fenced):
                lease.give_up()
        return made

    def make(self, made: Made, lease: Lease | None = None) -> None:
        """Make the reports that are due: of each period those of its tenants first, then the platform's, which says that it is complete."""
        until, now = time.monotonic() + PASS_S, self._now_ms()
        began = rows.first_day_ms(self.engine)
        if began is None:
            return
        done = rows.periods_made(self.engine, SCOPE)
        since = day_of(began)
        # The months after the days: they are made of them.
        for period in [*due(now, since, "day", done, DAYS_BACK), *due(now, since, "month", done, MONTHS_BACK)]:
            if not self._make_tenants(period, now, until, made, lease):
                return
            made.reports += self.keep(SCOPE, period, platform_report(self.engine, period, now))
            self._idle = {each for each in self._idle if each[1] != period.name}

    def _make_tenants(self, period: Period, now: int, until: float, made: Made, lease: Lease | None) -> bool:
        """Make the reports of tenants about a period; False when there was no time for all."""
        existing = rows.scopes_made(self.engine, period.name)
        asked: list[str] = []
        try:
            for tenant in self._tenants():
                scope = scope_of(tenant.id)
                if scope in existing or (scope, period.name) in self._idle:
                    continue
                if time.monotonic() >= until or (lease is not None and not lease.hold()):
                    return False
                with rows.standing(self.engine) as (connection, position):
                    report = read_report(connection, position, tenant, period, now)
                if is_idle(report):
                    self._idle.add((scope, period.name))
                else:
                    asked.append(self._ask(scope, period, report))
                if len(asked) == ASKED_AT_ONCE:
                    made.reports += self._kept(asked)
        finally:
            made.reports += self._kept(asked)
        return True

    def keep(self, scope: str, period: Period, report: Mapping[str, Any]) -> bool:
        """Have a report kept by the recorder; False where there is one. Raises Unavailable."""
        return self._kept([self._ask(scope, period, report)]) == 1

    def _ask(self, scope: str, period: Period, report: Mapping[str, Any]) -> str:
        forget = self._now_ms() - self.settings.reports_kept_days * MS_PER_DAY
        fields = {"scope": scope, "kind": period.kind, "period": period.name, "position": report["position"], "forget": forget}
        return append_request(self.link, "request.report", fields, payload=json.dumps(report, ensure_ascii=False))

    def _kept(self, asked: list[str]) -> int:
        """Wait for the answers to what was asked, and return how many reports were kept; the list is empty afterwards."""
        kept = 0
        while asked:
            answer = answer_to(self.link, asked.pop())
            kept += answer["status"] == "accepted"
            if answer["status"] == "invalid":
                log.error("a report was not taken: %s", answer.get("reason"))
        return kept

    def write(self, made: Made) -> None:
        """Write the files of reports that have none, as far back as artifacts are kept. Raises OSError, Unavailable."""
        if not self.settings.artifacts:
            return
        root = self.settings.resolved_artifacts_dir()
        since = self._now_ms() - int(self.settings.artifacts_kept_s * 1000)
        for told in rows.reports_since(self.engine, since):
            if told.id in self._written:
                continue
            paths = files_of(root, told.scope, told.period)
            if not all(path.exists() for path in paths):
                body = rows.report_body(self.engine, told.id)
                if body is not None:
                    write_report(paths, body)
                    made.files += len(paths)
            self._written.add(told.id)
            if made.files >= FILES_AT_ONCE:
                return

    def _tenants(self) -> list[Any]:
        with rows.standing(self.engine) as (connection, _):
            return rows.all_tenants(connection)


def is_idle(report: Mapping[str, Any]) -> bool:
    """Whether nothing happened that a tenant's report would be about."""
    runs = report["runs"]
    return not (report["breakdown"] or report["late"] or runs["submitted"] or runs["ended"] or runs["refused"] or runs["refusals"])


def files_of(root: Path, scope: str, period: str) -> tuple[Path, Path]:
    """Return where a report's JSON and HTML are."""
    kind, _, tenant = scope.partition(":")
    if kind == "tenant":
        return place.cost_report(root, tenant, period), place.cost_report(root, tenant, period, "html")
    return place.platform_report(root, period), place.platform_report(root, period, "html")


def write_report(paths: tuple[Path, Path], body: Mapping[str, Any]) -> None:
    """Write both files of a report; the JSON last, and without what only the next report needs. Raises OSError."""
    write_text(paths[1], page(body))
    write_json(paths[0], shown(body))


def shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report as people and programs get it."""
    return {name: value for name, value in body.items() if name not in ("stated", "worker_ms")}
