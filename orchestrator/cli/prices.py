"""Verbs about prices: list, show, set, reset, diff."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.here import recorded_here, running_here
from orchestrator.cli.output import as_json, at, print_json, print_table
from orchestrator.cli.tenant import audited

if TYPE_CHECKING:
    from cost.prices import PriceTable
    from orchestrator.price_tables import PriceTables

FILE_BYTES_MAX = 1_000_000

for_tenant = click.option("--tenant", metavar="ID", help="This tenant's own; without it, of all who have none of their own.")


@click.group()
def prices() -> None:
    """Look at price tables, and change which one holds.

    A FILE is JSON or TOML: {"version": "2026-12", "prices": {"llm/token": "20", "compute/second": "1000"}}, in micros (a millionth of a
    unit of money) as text. A version is never changed.
    """


@prices.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List every version there ever was, and who pays by it."""
    found = _recorded().list()
    if as_json:
        print_json(
            [
                {
                    "version": view.table.version,
                    "platform": view.platform,
                    "tenants": list(view.tenants),
                    "at": view.at,
                    "by": view.by,
                    "reason": view.reason,
                    "prices": view.table.texts(),
                }
                for view in found
            ]
        )
        return
    rows = [
        (
            view.table.version,
            ", ".join([*(["all others"] if view.platform else []), *view.tenants]) or "-",
            str(len(view.table.prices)),
            at(view.at),
            view.by,
            view.reason or "-",
        )
        for view in found
    ]
    print_table(("version", "holds for", "prices", "since", "by", "reason"), rows)


@prices.command()
@click.argument("version", required=False)
@for_tenant
@as_json
def show(version: str | None, tenant: str | None, as_json: bool) -> None:
    """Show the prices that hold, or those of a VERSION, in micros."""
    if version is not None and tenant is not None:
        raise click.UsageError("name a VERSION or a --tenant: a version has the same prices whoever pays")
    tables = _recorded()
    table = tables.get(version) if version is not None else tables.in_force(tenant)
    if as_json:
        print_json({"version": table.version, "prices": table.texts()})
        return
    click.echo(f"version {table.version}")
    print_table(("what", "micros"), list(table.texts().items()))


@prices.command("set")
@click.argument("file", metavar="FILE|VERSION")
@for_tenant
@audited
@as_json
def set_(file: str, tenant: str | None, reason: str, by: str | None, as_json: bool) -> None:
    """Have the prices in a FILE, or an earlier VERSION, hold from now on: attempts that begin pay by them within a second."""
    tables = running_here().prices
    table = read_table(Path(file)) if _is_file(file) else tables.get(file)
    before = tables.in_force(tenant)
    changed = tables.set(table.version, table.texts(), tenant=tenant, reason=reason, by=by)
    if as_json:
        print_json({"version": table.version, "tenant": tenant, "changed": changed, "diff": differences(before, table)})
        return
    whose = f"tenant {tenant}" if tenant else "all tenants without prices of their own"
    click.echo(f"version {table.version} {'holds' if changed else 'held already'} for {whose}")
    if changed:
        _print_differences(differences(before, table))


@prices.command()
@click.option("--tenant", metavar="ID", required=True, help="Whose own table ends.")
@audited
@as_json
def reset(tenant: str, reason: str, by: str | None, as_json: bool) -> None:
    """Have a tenant pay by the platform's table again."""
    tables = running_here().prices
    changed = tables.reset(tenant, reason=reason, by=by)
    version = tables.in_force(tenant).version
    if as_json:
        print_json({"version": version, "tenant": tenant, "changed": changed})
    else:
        click.echo(f"tenant {tenant} {'pays' if changed else 'paid already'} by version {version}, as all others do")


@prices.command()
@click.argument("new", metavar="FILE|VERSION")
@click.argument("old", metavar="[FILE|VERSION]", required=False)
@for_tenant
@as_json
def diff(new: str, old: str | None, tenant: str | None, as_json: bool) -> None:
    """Show what another table would change against the one that holds, or against a second one."""
    if old is not None and tenant is not None:
        raise click.UsageError("compare with a second table or with that of a --tenant")
    tables = None if _is_file(new) and old is not None and _is_file(old) else _recorded()

    def named(name: str) -> PriceTable:
        if _is_file(name):
            return read_table(Path(name))
        assert tables is not None
        return tables.get(name)

    after = named(new)
    if old is not None:
        before = named(old)
    else:
        assert tables is not None
        before = tables.in_force(tenant)
    found = differences(before, after)
    if as_json:
        print_json({"old": before.version, "new": after.version, "diff": found})
        return
    click.echo(f"{before.version} -> {after.version}" + ("" if found else ": the same prices"))
    _print_differences(found)


def read_table(file: Path) -> PriceTable:
    """Return the price table in a file. Raises click.UsageError with one sentence."""
    from cost.prices import PriceTable

    parse: Callable[[str], Any] = tomllib.loads if file.suffix == ".toml" else _json
    try:
        with file.open("rb") as opened:
            raw = opened.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise click.UsageError(f"{file} is larger than {FILE_BYTES_MAX} bytes")
        found = parse(raw.decode())
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{file} is no {'TOML' if parse is tomllib.loads else 'JSON'}: {str(error)[:200]}") from None
    if not isinstance(found, dict) or set(found) != {"version", "prices"}:
        raise click.UsageError(f'{file} must have "version" and "prices", and nothing else')
    try:
        return PriceTable.of(found["version"], found["prices"])
    except ValueError as error:
        raise click.UsageError(f"{file}: {error}") from None


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := [name for name in names if names.count(name) > 1][:1]:
            raise ValueError(f"{twice[0][:60]!r} is named twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=once)


def differences(before: PriceTable, after: PriceTable) -> dict[str, list[str | None]]:
    """Return what differs: category/unit to what it was and what it is, None for no price."""
    old, new = before.texts(), after.texts()
    return {name: [old.get(name), new.get(name)] for name in sorted({*old, *new}) if old.get(name) != new.get(name)}


def _print_differences(found: dict[str, list[str | None]]) -> None:
    if found:
        print_table(("what", "was", "is"), [(name, was or "-", now or "-") for name, (was, now) in found.items()])


def _is_file(name: str) -> bool:
    return Path(name).suffix in (".json", ".toml") or Path(name).is_file()


def _recorded() -> PriceTables:
    return recorded_here().prices
