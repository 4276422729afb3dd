"""The verb that shows who did what: audit."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from orchestrator.cli.output import as_json, at, print_json, print_table
from orchestrator.cli.words import RUN

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
SHOWN_CHARS = 60


class Since(click.ParamType[float]):
    """A time, or how long ago that was: 2026-11-22T10:00, 30m, 2h, 7d. Epoch seconds."""

    name = "since"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return value
        if ago := re.fullmatch(r"([0-9]{1,9})([smhd])", value):
            return time.time() - int(ago[1]) * UNITS_S[ago[2]]
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: say how long ago (30m, 2h, 7d), or when (2026-11-22T10:00)", param, ctx)


@click.command()
@click.option("--tenant", metavar="ID", help="Only what was done to this tenant and its runs.")
@click.option("--run", "run_id", type=RUN, metavar="RUN", help="Only what was done to this run.")
@click.option("--since", type=Since(), metavar="WHEN", help="Only from then on: 30m, 2h, 7d ago, or 2026-11-22T10:00.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many, the newest.")
@as_json
def audit(tenant: str | None, run_id: str | None, since: float | None, limit: int, as_json: bool) -> None:
    """Show who did what, when and why, oldest first: control calls, changes of tenants and prices, admissions and refusals."""
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings
    from orchestrator.store import read

    engine = recorded(Settings.load()).engine
    if tenant is not None:
        read.get_tenant(engine, tenant)
    run = None if run_id is None else find_run(engine, run_id)
    found = read.audit(engine, tenant, run=run, since=since, limit=limit)
    if as_json:
        print_json([{**asdict(line), "said": dict(line.said)} for line in found])
        return
    rows = [
        (at(line.at), line.actor, line.action, line.tenant or "-", line.target or "-", _what(line), line.reason or "-") for line in found
    ]
    print_table(("at", "by", "action", "tenant", "target", "what", "reason"), rows)


def _what(line: Any) -> str:
    if line.field:
        return f"{line.field}: {line.old} -> {line.new}"
    return shortened(line.said) or "-"


def shortened(said: Mapping[str, Any]) -> str:
    """Return what else an entry says, on one line."""
    text = ", ".join(f"{name} {value}" for name, value in said.items() if value not in (None, "", [], {}))
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."
