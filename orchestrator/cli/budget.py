"""The verb that shows money: budget."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import as_json, money, print_json, print_table, say

if TYPE_CHECKING:
    from orchestrator.tenants import Usage

BAR_CHARS = 20
TENANTS_SHOWN = 50


@click.command()
@click.argument("tenant", required=False)
@as_json
def budget(tenant: str | None, as_json: bool) -> None:
    """Show what TENANT, or each tenant, has committed of its limits: settled, reserved and held, and the level that it is at.

    Amounts are of today (UTC), in units, and of the month where a tenant has a limit for it.
    """
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    client = running(Settings.load())
    tenants = [tenant] if tenant is not None else [each.id for each in client.tenants.list()]
    shown = tenants if as_json else tenants[:TENANTS_SHOWN]
    found = [client.tenants.usage(each) for each in shown]
    if as_json:
        print_json([{**asdict(each), "by_category_micros": dict(each.by_category_micros)} for each in found])
        return
    rows = [row for each in found for row in _rows(each)]
    print_table(("tenant", "of", "committed", "", "limit", "settled", "reserved", "held", "level"), rows)
    if len(tenants) > len(shown):
        say(f"and {len(tenants) - len(shown)} more: name one, or --json")


def _rows(usage: Usage) -> list[tuple[str, ...]]:
    held = usage.held_micros
    amounts = [("day", usage.limit_per_day_micros, usage.settled_micros, usage.reserved_micros, usage.level)]
    if usage.limit_per_month_micros is not None:
        amounts.append(
            ("month", usage.limit_per_month_micros, usage.month_settled_micros, usage.month_reserved_micros, usage.month_level or "HEALTHY")
        )
    rows = []
    for period, limit, settled, reserved, level in amounts:
        committed = settled + reserved + held
        parts = (str(money(each)) for each in (settled, reserved, held))
        share = f"{committed / limit:.0%}" if limit else "-"
        name = usage.tenant if period == "day" else ""
        rows.append((name, period, share, bar(committed, limit), str(money(limit)), *parts, level.lower()))
    return rows


def bar(committed: int, limit: int | None) -> str:
    """Return how full it is as 20 characters; empty where there is no limit."""
    if not limit:
        return ""
    full = min(BAR_CHARS, round(BAR_CHARS * committed / limit))
    return "#" * full + "." * (BAR_CHARS - full)
