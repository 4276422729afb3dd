"""`headgate report`: what a day or month cost, of a tenant or of the platform, for the terminal, a program or a browser."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.here import recorded_here
from orchestrator.cli.output import as_json, print_fields, print_json, print_table, say, seconds


@click.command()
@click.option("--tenant", help="The cost report of this tenant; without it the platform's.")
@click.option("--day", metavar="YYYY-MM-DD", help="A day (UTC); today unless a day or month is said.")
@click.option("--month", metavar="YYYY-MM", help="A month (UTC).")
@click.option("--by", "label", metavar="LABEL", help="Group a tenant's costs by the values of this label, given at submission.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write one self-contained page.")
@as_json
def report(tenant: str | None, day: str | None, month: str | None, label: str | None, html: Path | None, as_json: bool) -> None:
    """Report what a day or month cost, as it is known now; the position of the log that it stands at is said.

    Those of closed days and months are made by beat at 00:05 UTC, and lie among the artifacts; this one is not kept.
    """
    from orchestrator.reports.page import page
    from orchestrator.reports.period import Period
    from orchestrator.reports.platform_report import platform_report
    from orchestrator.reports.reporter import shown
    from orchestrator.reports.tenant_report import tenant_report

    if day is not None and month is not None:
        raise click.UsageError("give --day or --month, not both")
    if label is not None and tenant is None:
        raise click.UsageError("--by groups the costs of a tenant: give --tenant, too")
    now_ms = time.time_ns() // 1_000_000
    period = Period.parse(month or day or time.strftime("%Y-%m-%d", time.gmtime(now_ms / 1000)))
    engine = recorded_here().engine
    made = platform_report(engine, period, now_ms) if tenant is None else tenant_report(engine, tenant, period, now_ms)
    if html is not None:
        html.write_text(page(made), encoding="utf-8")
        say(f"wrote {html}")
    if as_json:
        found = shown(made)
        print_json(found if label is None else {**found, "labels": {label: _values(made, label)}})
    elif html is None and tenant is None:
        _platform(made)
    elif html is None:
        _tenant(made, label)


def _values(made: Mapping[str, Any], label: str) -> dict[str, int]:
    """Return what was charged by value of a label; all of it has none where no run has the label."""
    from orchestrator.reports.figures import NO_VALUE

    used = made["budget"]["used"]
    return dict(made["labels"].get(label) or ({NO_VALUE: used} if used else {}))


def _tenant(made: Mapping[str, Any], label: str | None) -> None:
    from orchestrator.reports.page import money

    currency, budget = made["currency"], made["budget"]
    rate = "" if budget["rate"] is None else f", {budget['rate']:.1%}"
    print_fields(
        {
            "tenant": f"{made['tenant_id']} ({made['name']})",
            "period": made["period"] + ("" if made["complete"] else " (not over yet)"),
            "used": f"{money(budget['used'], currency)} of {money(budget['limit'], currency)}{rate}, {budget['level']}",
            "of it waste": money(made["waste"], currency) if made["waste"] else None,
            **_runs(made),
            "forecast": _forecast(made["forecast"], currency),
            "stands at": made["position"],
        }
    )
    if label is not None:
        _amounts(label, _values(made, label), currency)
    else:
        _amounts("category", made["breakdown"], currency)
    if made["top"]:
        click.echo()
        tops = [
            (each["run_id"] or "correction", each["graph"] or "-", each["state"] or "-", money(each["cost"], currency))
            for each in made["top"]
        ]
        print_table(("run", "graph", "state", "charged"), tops)
    _late(made, currency)


def _platform(made: Mapping[str, Any]) -> None:
    from orchestrator.reports.page import money

    print_fields(
        {
            "period": made["period"] + ("" if made["complete"] else " (not over yet)"),
            "charged": ", ".join(money(micros, currency) for currency, micros in made["used"].items()) or "nothing",
            **_runs(made),
            "fairness": made["fairness"],
            "forecast": "; ".join(_forecast(cast, currency) for currency, cast in made["forecast"].items()) or None,
            "stands at": made["position"],
        }
    )
    if made["tenants"]:
        click.echo()
        rows = [
            (
                each["tenant_id"],
                money(each["used"], each["currency"]),
                str(each["runs_ended"]),
                seconds(each["worker_s"]),
                "-" if each["share"] is None else f"{each['share']:.1%}",
                "-" if each["due"] is None else f"{each['due']:.1%}",
            )
            for each in made["tenants"]
        ]
        print_table(("tenant", "charged", "runs", "worker time", "share", "by weight"), rows)
    _late(made, "")


def _runs(made: Mapping[str, Any]) -> dict[str, str]:
    runs = made["runs"]
    each = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in runs["outcomes"].items() if count)
    wait, took = runs["queue_wait_s"], runs["duration_s"]
    return {
        "runs": f"{runs['submitted']} submitted, {runs['ended']} ended" + (f": {each}" if each else "") + f"; {runs['refusals']} refusals",
        "wait p50/p95": f"{seconds(wait['p50'])} / {seconds(wait['p95'])}",
        "duration p50/p95": f"{seconds(took['p50'])} / {seconds(took['p95'])}",
    }


def _forecast(cast: Mapping[str, Any], currency: str) -> str:
    from orchestrator.reports.page import money

    limit = "" if cast["limit"] is None else f" of {money(cast['limit'], currency)}"
    return f"{cast['period']}: {money(cast['settled'], currency)} so far, likely {money(cast['projected'], currency)}{limit}"


def _amounts(what: str, amounts: Mapping[str, int], currency: str) -> None:
    from orchestrator.reports.page import money

    if amounts:
        click.echo()
        print_table((what, "charged"), [(name, money(micros, currency)) for name, micros in amounts.items()])


def _late(made: Mapping[str, Any], currency: str) -> None:
    from orchestrator.reports.page import money

    if made["late"]:
        click.echo()
        late = [(each["period"], name, money(micros, currency)) for each in made["late"] for name, micros in each["by"].items()]
        print_table(("late for", "what", "amount"), late)
