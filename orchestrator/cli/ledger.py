"""Verbs about the ledger: adjust, export, reprice, audit."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from orchestrator.cli.exits import Exit
from orchestrator.cli.here import recorded_here, running_here
from orchestrator.cli.output import as_json, print_json, print_table, say
from orchestrator.cli.tenant import audited
from orchestrator.cli.words import BUDGET

_CATEGORIES = click.Choice(["llm", "retrieval", "storage", "compute", "other"])
_DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def ledger() -> None:
    """Correct, export, price anew and check the ledger: one entry for each thing that moved money, never changed."""


@ledger.command()
@click.argument("tenant")
@click.argument("amount", type=BUDGET)
@click.option("--category", type=_CATEGORIES, required=True)
@click.option("--day", type=_DAY, help="Of what is corrected (UTC), such as 2026-11-22; today unless said.")
@click.option("--refund", is_flag=True, help="Give AMOUNT back, at most what was charged in that day and category.")
@click.option("--key", help="Makes it idempotent: the same key books once.")
@audited
@as_json
def adjust(
    tenant: str,
    amount: str,
    category: str,
    day: datetime | None,
    refund: bool,
    key: str | None,
    reason: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Charge TENANT another AMOUNT, in units such as 0.06, or with --refund give it back: an entry of its own, with who and why."""
    signed = f"-{amount}" if refund else amount
    date = day.date() if day else None
    booked = running_here().ledger.adjust(tenant, signed, category, day=date, reason=reason, by=by, id=key)
    if as_json:
        print_json({"tenant": tenant, "amount": signed, "category": category, "booked": booked})
        return
    click.echo(f"tenant {tenant}: {signed} {category}" if booked else f"tenant {tenant}: it was booked before")


@ledger.command()
@click.option("--tenant", required=True)
@click.option("--month", required=True, metavar="YYYY-MM", help="Whose days (UTC) the entries are in.")
@click.option("--format", "kind", type=click.Choice(["csv", "json"]), default="csv", show_default=True, help="json: an object a line.")
@as_json
def export(tenant: str, month: str, kind: str, as_json: bool) -> None:
    """Print every entry of a tenant's month by day, time and id, however many; what they come to is told on stderr.

    `amount` is in micros, `units` is the same in units of money.
    """
    from cost.money import CATEGORIES
    from orchestrator.store.ledger import CHARGES, COLUMNS

    kind = "json" if as_json else kind
    entries = recorded_here().ledger.entries(tenant, month)
    columns = [*COLUMNS, "units"]
    count, charged, cats = 0, 0, Counter[str]()
    if kind == "csv":
        click.echo(",".join(columns))
    for entry in entries:
        row = {**entry, "units": _units(entry["amount"])}
        click.echo(_csv(row, columns) if kind == "csv" else json.dumps(row, ensure_ascii=False))
        count += 1
        if entry["kind"] in CHARGES:
            charged += entry["amount"]
            cats[entry["category"]] += entry["amount"]
    each = ", ".join(f"{category} {_units(cats[category])}" for category in CATEGORIES if cats[category])
    say(f"{count} entries; charged {_units(charged)} ({charged} micros)" + (f": {each}" if each else ""))


@ledger.command()
@click.option("--from", "since", type=_DAY, required=True, help="The first day (UTC).")
@click.option("--to", "until", type=_DAY, help="The last day; today unless said.")
@click.option("--version", required=True, help="The price table to price by.")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--dry-run", is_flag=True, help="Book nothing, only say what would be.")
@audited
@as_json
def reprice(
    since: datetime, until: datetime | None, version: str, tenant: str | None, dry_run: bool, reason: str, by: str | None, as_json: bool
) -> None:
    """Price the usage of past days by another table, and book the differences as adjustments; repeated, it books nothing more."""
    to = until.date() if until else None
    found = running_here().ledger.reprice(since.date(), version, until=to, tenant=tenant, dry_run=dry_run, reason=reason, by=by)
    if as_json:
        print_json(
            {
                "version": version,
                "dry_run": dry_run,
                "micros": [
                    {"tenant": name, "category": category, "micros": found.micros[name, category]}
                    for name, category in sorted(found.micros)
                ],
                "executions": dict(found.executions),
                "adjustments": dict(found.adjustments),
                "skipped": [{"tenant": name, "why": why, "executions": count} for (name, why), count in sorted(found.skipped.items())],
                "examples": [{"tenant": name, "execution": execution, "why": why} for name, execution, why in found.examples],
            }
        )
        return
    print_table(
        ("tenant", "category", "difference"),
        [(name, category, _units(found.micros[name, category])) for name, category in sorted(found.micros)],
    )
    say(f"{sum(found.executions.values())} executions, {sum(found.adjustments.values())} adjustments {'to book' if dry_run else 'booked'}")
    for (name, why), count in sorted(found.skipped.items()):
        say(f"tenant {name}: {count} not repriceable: {why}")
    for name, execution, why in found.examples:
        say(f"  {name}  {execution}  {why}")


@ledger.command()
@click.option("--tenant", help="Only this tenant's.")
@as_json
def audit(tenant: str | None, as_json: bool) -> None:
    """Compare every counter in Redis with the ledger, at one position of the log, also while work goes on.

    What differs is kept as an incident with the entries concerned, and nothing is mended. Exits with 1 where something differs.
    """
    from orchestrator.auditor import Auditor

    client = running_here()
    names = [client.tenants.get(tenant).id] if tenant is not None else [each.id for each in client.tenants.list()]
    auditor = Auditor(client.kernel.link, client.engine)
    found = [difference for name in names for difference in auditor.audit(name)]
    if as_json:
        names_of = ("tenant", "what", "counter", "ledger", "why", "entries")
        print_json({"tenants": len(names), "differences": [{name: getattr(each, name) for name in names_of} for each in found]})
    else:
        if found:
            rows = [(each.what, str(each.counter), str(each.ledger), each.why, " ".join(each.entries)) for each in found]
            print_table(("counter", "is", "must be", "because", "entries"), rows)
        click.echo(f"{len(names)} tenants, {len(found)} differences")
    if found:
        raise click.exceptions.Exit(Exit.FAILED)


def _csv(row: Mapping[str, Any], columns: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([row[name] for name in columns])
    return line.getvalue()


def _units(micros: int) -> str:
    """Return an amount in units; sums may be less than 0."""
    whole, rest = divmod(abs(micros), 1_000_000)
    decimals = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if micros < 0 else ''}{whole}{decimals}"
