"""Reading price tables from the record."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Engine, select

from cost.keys import EVERYBODY
from cost.prices import DEFAULT_PRICES, PriceTable
from tenancy.errors import Unknown

from . import tables as t
from .read import open_record

BUILT_IN = "built in"


@dataclass(frozen=True)
class PricesView:
    """A price table: since when it is on record (epoch seconds), by whom and why.

    platform: whether those pay by it who have no table of their own. tenants: who has it as its own.
    """

    table: PriceTable
    at: float | None
    by: str
    reason: str
    platform: bool
    tenants: tuple[str, ...]


def price_tables(engine: Engine) -> list[PricesView]:
    """Return every price table there ever was, oldest first. Raises Unavailable."""
    with open_record(engine) as connection:
        rows = connection.execute(select(t.price_table).order_by(t.price_table.c.at, t.price_table.c.version)).mappings().all()
        chosen = {row.tenant: row.version for row in connection.execute(select(t.price_choice).order_by(t.price_choice.c.tenant))}
    chosen.setdefault(EVERYBODY, DEFAULT_PRICES.version)
    found = [(DEFAULT_PRICES, None, "headgate", BUILT_IN)]
    found += [(PriceTable.of(row["version"], json.loads(row["prices"])), row["at"] / 1000, row["by"], row["reason"]) for row in rows]
    return [
        PricesView(
            table,
            at,
            by,
            reason,
            chosen[EVERYBODY] == table.version,
            tuple(tenant for tenant, version in chosen.items() if version == table.version and tenant != EVERYBODY),
        )
        for table, at, by, reason in found
    ]


def price_table(engine: Engine, version: str) -> PriceTable:
    """Return the table of a version. Raises Unknown and Unavailable."""
    with open_record(engine) as connection:
        text = connection.execute(select(t.price_table.c.prices).where(t.price_table.c.version == version)).scalar()
    if text is not None:
        return PriceTable.of(version, json.loads(text))
    if version == DEFAULT_PRICES.version:
        return DEFAULT_PRICES
    raise Unknown(f"there is no price table {version!r}; `headgate prices list` names them")


def price_table_in_force(engine: Engine, tenant: str | None = None) -> PriceTable:
    """Return the table that a tenant (None: one without its own) pays by now. Raises Unknown for a tenant that there is not."""
    with open_record(engine) as connection:
        known = tenant is None or connection.execute(select(t.tenant.c.id).where(t.tenant.c.id == tenant)).first() is not None
        chosen = {row.tenant: row.version for row in connection.execute(select(t.price_choice))}
    if not known:
        raise Unknown(f"there is no tenant {tenant!r}")
    own = None if tenant is None else chosen.get(tenant)
    return price_table(engine, own or chosen.get(EVERYBODY, DEFAULT_PRICES.version))
