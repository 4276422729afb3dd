"""Verbs about tenants: create, list, show, set, suspend, resume, close, fork, history."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.here import running_here
from orchestrator.cli.output import as_json, at, money, print_fields, print_json, print_table
from orchestrator.cli.words import BUDGET
from tenancy.errors import Unavailable

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.store.read import AuditView, TenantView
    from orchestrator.tenants import Usage

FROM_HERE = "from the command line"


def audited(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every change: why, and who."""
    why = click.option("--reason", default=FROM_HERE, show_default=True, help="Goes on record.")
    who = click.option("--by", help="Who does it; the user of this process unless said.")
    return why(who(command))


tenant_id = click.argument("tenant_id", metavar="ID")
assignments = click.argument("assignments", nargs=-1, metavar="[FIELD=VALUE]...")
limit_per_day = click.option("--limit-per-day", type=BUDGET, metavar="UNITS", help="Most that it may spend in a day (UTC), such as 5.00.")


@click.group()
def tenant() -> None:
    """Create, look at and change tenants."""


@tenant.command()
@tenant_id
@assignments
@click.option("--name", help="For people; the id unless said.")
@limit_per_day
@audited
@as_json
def create(
    tenant_id: str, assignments: tuple[str, ...], name: str | None, limit_per_day: str | None, reason: str, by: str | None, as_json: bool
) -> None:
    """Create a tenant. FIELD=VALUE are fields of its policy, such as max_concurrent_runs=3; `tenant show` lists them."""
    fields = _fields(assignments, limit_per_day)
    client = running_here()
    _made(client, client.tenants.create(tenant_id, name=name, reason=reason, by=by, **fields), as_json)


@tenant.command()
@click.argument("source", metavar="SOURCE")
@tenant_id
@assignments
@click.option("--name", help="For people; the id unless said.")
@limit_per_day
@audited
@as_json
def fork(
    source: str,
    tenant_id: str,
    assignments: tuple[str, ...],
    name: str | None,
    limit_per_day: str | None,
    reason: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Create a tenant with the policy of SOURCE, but for FIELD=VALUE; SOURCE's policy must say can_fork=true."""
    fields = _fields(assignments, limit_per_day)
    client = running_here()
    _made(client, client.tenants.fork(source, tenant_id, name=name, reason=reason, by=by, **fields), as_json)


@tenant.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List all tenants."""
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings

    found = recorded(Settings.load()).tenants.list()
    if as_json:
        print_json([_as_json(each) for each in found])
        return
    rows = [
        (
            each.id,
            each.name,
            each.status,
            money(each.policy.limit_per_day_micros) or "-",
            str(each.policy.max_concurrent_runs),
            str(each.policy.weight),
        )
        for each in found
    ]
    print_table(("tenant", "name", "status", "limit per day", "runs at once", "weight"), rows)


@tenant.command()
@tenant_id
@as_json
def show(tenant_id: str, as_json: bool) -> None:
    """Show a tenant, the policy that holds, whether it is paused, and while a stack runs what it uses."""
    from orchestrator.cli.pause import since
    from orchestrator.cli.service import recorded, runs
    from orchestrator.settings import Settings
    from orchestrator.store.read import pauses

    settings = Settings.load()
    client = recorded(settings)
    found = client.tenants.get(tenant_id)
    paused = next((each for each in pauses(client.engine) if each.scope == f"tenant:{tenant_id}"), None)
    usage = None
    if runs(settings):
        with suppress(Unavailable):  # what is on record is shown all the same
            usage = client.tenants.usage(tenant_id)
    if as_json:
        print_json({**_as_json(found), "paused": paused and asdict(paused), "usage": usage and asdict(usage)})
        return
    own = {"tenant": found.id, "name": found.name, "status": found.status, "paused": paused and since(paused)}
    print_fields({**own, "created": at(found.created_at), "policy version": found.version, **found.policy.acting(), **_used(usage)})


@tenant.command("set")
@tenant_id
@assignments
@limit_per_day
@click.option("--version", type=click.IntRange(1), help="Change it only if this version of the policy still holds.")
@audited
@as_json
def set_(
    tenant_id: str,
    assignments: tuple[str, ...],
    limit_per_day: str | None,
    version: int | None,
    reason: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Change fields of a tenant's policy; it holds everywhere when this returns. FIELD=null clears one that may be empty."""
    fields = _fields(assignments, limit_per_day)
    if not fields:
        raise click.UsageError("there is nothing to set; write FIELD=VALUE, such as weight=2")
    client = running_here()
    changed = client.tenants.update(tenant_id, reason=reason, by=by, version=version, **fields)
    if as_json:
        print_json({**_as_json(client.tenants.get(tenant_id)), "changed": {name: list(pair) for name, pair in changed.items()}})
        return
    for name, (old, new) in changed.items():
        click.echo(f"{name}: {_value(old)} -> {_value(new)}")
    if not changed:
        click.echo(f"tenant {tenant_id} is so already")


@tenant.command()
@tenant_id
@audited
@as_json
def suspend(tenant_id: str, reason: str, by: str | None, as_json: bool) -> None:
    """Let no new run of a tenant in, and nothing of its runs begin, until it is resumed. What runs goes on."""
    client = running_here()
    _became(client, tenant_id, "suspended", client.tenants.suspend(tenant_id, reason=reason, by=by), as_json)


@tenant.command()
@tenant_id
@audited
@as_json
def resume(tenant_id: str, reason: str, by: str | None, as_json: bool) -> None:
    """End a tenant's suspension."""
    client = running_here()
    _became(client, tenant_id, "active", client.tenants.resume(tenant_id, reason=reason, by=by), as_json)


@tenant.command()
@tenant_id
@audited
@as_json
def close(tenant_id: str, reason: str, by: str | None, as_json: bool) -> None:
    """Let no new run of a tenant in, for good. Its live runs finish, and its record stays."""
    client = running_here()
    _became(client, tenant_id, "closed", client.tenants.close(tenant_id, reason=reason, by=by), as_json)


@tenant.command()
@tenant_id
@as_json
def history(tenant_id: str, as_json: bool) -> None:
    """Show what was done to a tenant, by whom and why, oldest first."""
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings

    found = recorded(Settings.load()).tenants.history(tenant_id)
    if as_json:
        print_json([asdict(line) for line in found])
        return
    rows = [(at(line.at), line.actor, line.action, _done(line), line.reason or "-") for line in found]
    print_table(("at", "by", "action", "what", "reason"), rows)


def _fields(words: tuple[str, ...], limit_per_day: str | None) -> dict[str, Any]:
    """Return the fields of a policy that a command names; one that there is not, or that would be ignored, is a usage error."""
    from cost.money import parse_units
    from orchestrator.cli.target import parameters
    from tenancy.policy import Policy, no_field

    fields: dict[str, Any] = parameters(words)
    if limit_per_day is not None:
        fields["limit_per_day_micros"] = parse_units(limit_per_day)
    for name in fields:
        if name not in Policy.model_fields:
            raise click.UsageError(no_field(name))
    if ignored := Policy.model_construct(**fields).not_yet():
        raise click.UsageError("; ".join(ignored))
    return fields


def _made(client: Client, made: TenantView, as_json: bool) -> None:
    if as_json:
        print_json({**_as_json(made), "paused": None, "usage": asdict(client.tenants.usage(made.id))})
    else:
        click.echo(f"tenant {made.id} created")


def _became(client: Client, tenant_id: str, status: str, changed: bool, as_json: bool) -> None:
    usage = client.tenants.usage(tenant_id)
    live = usage.running_runs + usage.waiting_runs
    if as_json:
        print_json({"tenant": tenant_id, "status": status, "changed": changed, "live_runs": live})
        return
    left = "" if not live or status == "active" else f"; {live} live run{'s' if live > 1 else ''} " + _FATE[status]
    click.echo(f"tenant {tenant_id} {'is' if changed else 'was already'} {status}{left}")


_FATE = {"suspended": "wait, but for what runs", "closed": "may finish"}


def _used(usage: Usage | None) -> dict[str, str]:
    if usage is None:
        return {"usage": "no stack runs"}
    spent = " ".join(
        [str(money(usage.settled_micros)), *(f"{category} {money(micros)}" for category, micros in usage.by_category_micros.items())]
    )
    return {
        "spent today": spent,
        "level": _level(usage),
        "reserved, held": f"{money(usage.reserved_micros)}, {money(usage.held_micros)}",
        "runs": f"{usage.running_runs} running, {usage.waiting_runs} waiting",
        "running nodes": str(usage.running_nodes),
    }


def _level(usage: Usage) -> str:
    rate = usage.rate_ppm // 100
    entry = f", entry {usage.entry}" if usage.entry else ""
    month = (
        ""
        if usage.month_level is None
        else f"; of the month {usage.month_level}" + (f", entry {usage.month_entry}" if usage.month_entry else "")
    )
    return f"{usage.level} at {rate // 100}.{rate % 100:02} %{entry}{month}"


def _value(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _done(line: AuditView) -> str:
    if line.field is not None:
        return f"{line.field}: {_value(line.old)} -> {_value(line.new)}"
    return line.target or "-"


def _as_json(found: TenantView) -> dict[str, Any]:
    names = ("id", "name", "status", "currency", "created_at", "version")
    return {**{name: getattr(found, name) for name in names}, "policy": found.policy.acting()}
