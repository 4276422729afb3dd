"""Verbs about tenants: create, list, show."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import as_json, at, money, print_fields, print_json, print_table
from orchestrator.cli.words import BUDGET

if TYPE_CHECKING:
    from orchestrator.store.read import TenantView


@click.group()
def tenant() -> None:
    """Create and look at tenants."""


@tenant.command()
@click.argument("id")
@click.argument("policy", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--name", help="For people; the id unless said.")
@click.option("--limit-per-day", type=BUDGET, metavar="UNITS", help="Most that it may spend in a day (UTC), such as 5.00.")
@as_json
def create(
    id: str,  # noqa: A002 - what the argument is called
    policy: tuple[str, ...],
    name: str | None,
    limit_per_day: str | None,
    as_json: bool,
) -> None:
    """Create a tenant. FIELD=VALUE are fields of its policy, such as max_concurrent_runs=3; `tenant show` lists them."""
    from cost.money import parse_units
    from orchestrator.cli.service import running
    from orchestrator.cli.target import parameters
    from orchestrator.settings import Settings
    from orchestrator.store.read import get_tenant

    fields: dict[str, Any] = parameters(policy)
    if limit_per_day is not None:
        fields["limit_per_day_micros"] = parse_units(limit_per_day)
    _check(fields)
    client = running(Settings.load())
    client.create_tenant(id, name=name, **fields)
    if as_json:
        print_json(_as_json(get_tenant(client.engine, id)))
    else:
        click.echo(f"tenant {id} created")


@tenant.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List all tenants."""
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings
    from orchestrator.store.read import tenants

    found = tenants(recorded(Settings.load()).engine)
    if as_json:
        print_json([_as_json(each) for each in found])
        return
    rows = [
        (each.id, each.name, each.status, money(each.policy.limit_per_day_micros) or "-", str(each.policy.max_concurrent_runs))
        for each in found
    ]
    print_table(("tenant", "name", "status", "limit per day", "runs at once"), rows)


@tenant.command()
@click.argument("id")
@as_json
def show(id: str, as_json: bool) -> None:  # noqa: A002 - what the argument is called
    """Show a tenant and the policy that holds."""
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings
    from orchestrator.store.read import get_tenant

    found = get_tenant(recorded(Settings.load()).engine, id)
    if as_json:
        print_json(_as_json(found))
        return
    own = {"tenant": found.id, "name": found.name, "status": found.status, "created": at(found.created_at), "policy version": found.version}
    print_fields({**own, **found.policy.acting()})


def _check(fields: dict[str, Any]) -> None:
    from tenancy.policy import ACTS, Policy

    for name, value in fields.items():
        if name not in Policy.model_fields:
            nearest = difflib.get_close_matches(name, ACTS, n=1, cutoff=0.0)[0]
            raise click.UsageError(f"a policy has no field {name!r}; the nearest is {nearest!r}")
        if name not in ACTS and value != Policy.model_fields[name].default:
            raise click.UsageError(f"the field {name!r} of a policy is not yet supported; leave it out")


def _as_json(found: TenantView) -> dict[str, Any]:
    names = ("id", "name", "status", "currency", "created_at", "version")
    return {**{name: getattr(found, name) for name in names}, "policy": found.policy.acting()}
