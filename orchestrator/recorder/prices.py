"""Requests about prices: another table for the platform or for one tenant; and what is published of them.

A version names one content for good, whoever pays by it: entries of the ledger carry nothing else.
"""

from __future__ import annotations

import json
from typing import Any

import redis
from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from cost import keys
from cost.prices import DEFAULT_PRICES, PriceTable
from orchestrator.store import tables as t

from .trail import leave_trail

Request = dict[str, Any]
Answer = dict[str, Any]


def decide_prices(connection: Connection, event: Request) -> Answer:
    """Return the answer to a request about prices, storing what it asks for.

    Without `tenant` it is about the platform. With `version` and `prices` the table is stored and holds from now on; `version` alone
    puts a stored one in force again; neither takes a tenant's own away. `status` is accepted (with `changed`: version -> [old, new]),
    same, conflict (the version has another content), unknown_tenant, or invalid with `reason`.
    """
    tenant, version = str(event.get("tenant") or ""), str(event.get("version") or "")
    said = {"of": tenant, "version": version}
    try:
        if tenant and connection.execute(select(t.tenant.c.id).where(t.tenant.c.id == tenant)).first() is None:
            return {"status": "unknown_tenant", **said}
        stored = table_of(connection, version)
        prices = json.loads(str(event.get("prices") or "null"))
        if prices:
            table = PriceTable.of(version, prices)
            if stored is not None and stored != table:
                return {"status": "conflict", **said}
            if stored is None:
                _store(connection, event, table)
        elif version and stored is None:
            raise ValueError(f"there is no price table {version[:64]!r}, and no prices to make one of")
        elif not version and not tenant:
            raise ValueError("the platform cannot be without a price table")
        return _put_in_force(connection, event, tenant or keys.EVERYBODY, version, said)
    except (ValueError, TypeError, RecursionError) as error:
        return {"status": "invalid", "reason": str(error), **said}


def table_of(connection: Connection, version: str) -> PriceTable | None:
    """Return the table of a version, or None; the built-in one needs no row."""
    text = connection.execute(select(t.price_table.c.prices).where(t.price_table.c.version == version)).scalar()
    if text is not None:
        return PriceTable.of(version, json.loads(text))
    return DEFAULT_PRICES if version == DEFAULT_PRICES.version else None


def _store(connection: Connection, event: Request, table: PriceTable) -> None:
    said = {name: str(event.get(name) or "") for name in ("by", "reason")}
    row = {"version": table.version, "prices": json.dumps(table.texts()), "at": int(event["at"]), **said}
    connection.execute(insert(t.price_table), row)


def _put_in_force(connection: Connection, event: Request, whose: str, version: str, said: Answer) -> Answer:
    mine = t.price_choice.c.tenant == whose
    old = connection.execute(select(t.price_choice.c.version).where(mine)).scalar()
    if old is None and whose == keys.EVERYBODY:
        old = DEFAULT_PRICES.version
    if (old or "") == version:
        return {"status": "same", **said}
    data, name = {"field": "prices", "old": old, "new": version or None}, f"{event['request']}.prices"
    leave_trail(connection, event, name, "prices.changed", said["of"] or "platform", data, tenant=said["of"] or None)
    connection.execute(delete(t.price_choice).where(mine))
    if version:
        connection.execute(insert(t.price_choice), {"tenant": whose, "version": version, "at": int(event["at"])})
    return {"status": "accepted", "changed": {"version": [old, version or None]}, **said}


def price_hashes(connection: Connection) -> dict[str, dict[str, str]]:
    """Return the Redis hashes that say which table holds for whom, and what is in those tables."""
    versions = {row.tenant: row.version for row in connection.execute(select(t.price_choice.c.tenant, t.price_choice.c.version))}
    versions.setdefault(keys.EVERYBODY, DEFAULT_PRICES.version)
    hashes = {keys.PRICES: versions}
    for version in sorted(set(versions.values())):
        table = table_of(connection, version)
        assert table is not None, f"price table {version} is in force and not on record"
        hashes[keys.price_table(version)] = table.texts()
    return hashes


def publish_prices(client: redis.Redis, connection: Connection) -> None:
    """Write all of it, absolute, in one transaction: no reader finds a version without its table."""
    hashes: dict[str, Any] = dict(price_hashes(connection))
    with client.pipeline(transaction=True) as pipe:
        for key, fields in hashes.items():
            pipe.delete(key)
            pipe.hset(key, mapping=fields)
        pipe.execute()
