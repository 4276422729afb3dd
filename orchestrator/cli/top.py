"""The verb that watches the platform: top."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.exits import Exit
from orchestrator.cli.output import as_json, money, print_json, print_table, seconds

if TYPE_CHECKING:
    from orchestrator.client import Client

PERIOD_S = 2.0
"""How often it looks; less often where looking takes long."""
TENANTS_SHOWN = 15

_TENANTS = ("tenant", "running", "in line", "oldest", "share/due", "committed", "of limit", "level")
_POOLS = ("pool", "workers", "slots", "running", "in line", "new runs")


@click.command()
@click.option("--once", is_flag=True, help="Print it once, as where there is no terminal.")
@as_json
def top(once: bool, as_json: bool) -> None:
    """Watch the platform: runs, pools, and the tenants with most at work or in line, until Ctrl-C.

    share/due is the part of worker time that a tenant received in the last minutes, beside what its weight gives it.
    """
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    client = running(Settings.load())
    if as_json:
        print_json(_look(client))
    elif once or not sys.stdout.isatty():
        found = _look(client)
        click.echo(_head(found))
        print_table(_POOLS, _pools(found))
        click.echo()
        print_table(_TENANTS, _tenants(found))
    else:
        sys.exit(_watch(client))


def _look(client: Client) -> dict[str, Any]:
    """Return what is shown: the queues as they are, and the money of the tenants that are shown."""
    from orchestrator.store import read
    from orchestrator.store.tables import LIVE
    from tenancy.transport.view import look

    view = look(client.kernel.link, backlog_per_slot=client.settings.backlog_per_slot)
    counts = {status: len(read.list_runs(client.engine, status=status, limit=read.LIMIT_MAX)) for status in LIVE}
    tenants = []
    for load in view.tenants[:TENANTS_SHOWN]:
        usage = client.tenants.usage(load.tenant)
        committed = usage.settled_micros + usage.reserved_micros + usage.held_micros
        oldest = max((line.oldest_s for line in load.lines if line.oldest_s is not None), default=None)
        money_of = {"committed_micros": committed, "limit_per_day_micros": usage.limit_per_day_micros, "level": usage.level}
        queues = {"running": load.running, "queued": load.queued, "parked": load.parked, "delayed": load.delayed, "oldest_s": oldest}
        of_share = {"share": load.share, "due": load.due, "paused": load.paused, "status": load.status}
        tenants.append({"tenant": load.tenant, **queues, **of_share, **money_of})
    return {
        "at": view.at,
        "paused": view.paused,
        "runs": counts,
        "letters": view.letters,
        "tenants_waiting": view.waiting,
        "tenants_left_out": max(0, len(view.tenants) - TENANTS_SHOWN),
        "pools": [asdict(pool) for pool in view.pools],
        "tenants": tenants,
    }


def _head(found: dict[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(found["at"]))
    runs = ", ".join(f"{count} {status}" for status, count in found["runs"].items() if count) or "no run is live"
    remarks = [
        *(["PAUSED"] if found["paused"] else []),
        *([f"{found['letters']} dead letters"] if found["letters"] else []),
        *([f"and {found['tenants_left_out']} more tenants"] if found["tenants_left_out"] else []),
    ]
    return "  ".join([at, runs, *remarks])


def _pools(found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            pool["pool"],
            *(str(pool[name]) for name in ("workers", "slots", "running", "queued")),
            "wait" if pool["state"] == "parked" else "start",
        )
        for pool in found["pools"]
    ]


def _tenants(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for each in found["tenants"]:
        share = "-" if each["share"] is None else f"{each['share']:.0%}"
        limit = each["limit_per_day_micros"]
        of_limit = "-" if not limit else f"{each['committed_micros'] / limit:.0%}"
        level = " ".join([str(each["level"]).lower(), *(["paused"] if each["paused"] else [])])
        counts = (str(each["running"]), str(each["queued"]), seconds(each["oldest_s"]))
        rows.append((each["tenant"], *counts, f"{share}/{each['due']:.0%}", str(money(each["committed_micros"])), of_limit, level))
    return rows


def _watch(client: Client) -> int:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    try:
        with Live(auto_refresh=False, screen=True) as live:
            while True:
                began = time.monotonic()
                found = _look(client)
                parts = (Text(_head(found)), Text(), _table(_POOLS, _pools(found)), Text(), _table(_TENANTS, _tenants(found)))
                live.update(Group(*parts), refresh=True)
                time.sleep(max(PERIOD_S, 4 * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return Exit.DETACHED


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    for at, heading in enumerate(headings):
        drawn.add_column(heading, no_wrap=True, justify="left" if at in (0, len(headings) - 1) else "right")
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn
