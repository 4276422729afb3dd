"""The prices that hold for a tenant now, as a worker knows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from tenancy.errors import Unavailable
from tenancy.link import Link

from . import keys
from .prices import DEFAULT_PRICES, PriceTable

LOOK_AFTER_S: Final = 0.5
"""How long a tenant's version is taken to be the one that was read; a change is noticed within this, and one round trip."""

KEPT_MAX: Final = 1_000
"""Tenants whose version is remembered, and tables; beyond that all are read anew."""


class PriceBook:
    """Price tables by tenant, read from what the recorder publishes: a tenant's own, else the platform's, else the built-in one.

    A version never changes its content, so a table is read once and a version at most twice a second. Safe to use from several threads.
    """

    def __init__(self, link: Link, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock
        self._versions: dict[str, tuple[str, float]] = {}
        self._tables: dict[str, PriceTable] = {}

    def of(self, tenant: str) -> PriceTable:
        """Return the table that `tenant` pays by. Raises Unavailable."""
        version, read_at = self._versions.get(tenant, ("", float("-inf")))
        now = self._clock()
        if now - read_at >= LOOK_AFTER_S:
            own, everybody = self._link.read("HMGET", keys.PRICES, tenant, keys.EVERYBODY)
            version = str(own or everybody or "")
            if len(self._versions) >= KEPT_MAX:
                self._versions.clear()
            self._versions[tenant] = version, now
        return self._table(version) if version else DEFAULT_PRICES

    def last(self, tenant: str) -> PriceTable:
        """Return the table that `tenant` pays by; while Redis is away the one that was read last, else the built-in one."""
        try:
            return self.of(tenant)
        except Unavailable:
            return self._tables.get(self._versions.get(tenant, ("", 0.0))[0], DEFAULT_PRICES)

    def _table(self, version: str) -> PriceTable:
        found = self._tables.get(version)
        if found is None:
            prices = self._link.read("HGETALL", keys.price_table(version))
            if not prices:
                raise Unavailable(f"price table {version} is not published; the recorder does that, is it running?")
            found = PriceTable(version, {_key(name): Decimal(micros) for name, micros in prices.items()})
            if len(self._tables) >= KEPT_MAX:
                self._tables.clear()
            self._tables[version] = found
        return found


def _key(name: str) -> tuple[str, str]:
    category, _, unit = name.partition("/")
    return category, unit
