"""Price tables as an operator handles them: a change is on record when its call returns, and workers price by it within a second."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cost.prices import PriceTable
from orchestrator.awaiting import awaitable
from orchestrator.recorder.ask import ask
from orchestrator.store.prices import PricesView, price_table, price_table_in_force, price_tables
from tenancy.errors import Conflict, Refused, Unknown

if TYPE_CHECKING:
    from orchestrator.client import Client


class PriceTables:
    """The price tables of a client's platform. Every call may raise Unavailable; asking again is safe."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> tuple[PricesView, ...]:
        """Return every price table there ever was, oldest first."""
        return tuple(price_tables(self._client.engine))

    def get(self, version: str) -> PriceTable:
        """Return the table of a version. Raises Unknown."""
        return price_table(self._client.engine, version)

    def in_force(self, tenant: str | None = None) -> PriceTable:
        """Return the table that a tenant pays by, None the one of those without their own. Raises Unknown."""
        return price_table_in_force(self._client.engine, tenant)

    def set(
        self, version: str, prices: Mapping[str, str] | None = None, *, tenant: str | None = None, reason: str = "", by: str | None = None
    ) -> bool:
        """Have a table hold for a tenant (None: for all without their own) from now on; False when it did.

        prices: micros as text by "category/unit", as `PriceTable.of` takes them; None for a version that is on record.
        Attempts that begin from now on pay by it. Raises Conflict when the version has another content, Unknown, and Refused
        when the table does not read.
        """
        return self._ask(version, dict(prices) if prices is not None else None, tenant, reason, by)

    def reset(self, tenant: str, *, reason: str = "", by: str | None = None) -> bool:
        """Have a tenant pay by the platform's table again; False when it did. Raises Unknown."""
        return self._ask("", None, tenant, reason, by)

    # -- the same for asyncio: one implementation, in threads -------------------------------------

    alist = awaitable(list)  # noqa: A003 (the method is meant)
    aget = awaitable(get)
    ain_force = awaitable(in_force)
    aset = awaitable(set)  # noqa: A003 (the method is meant)
    areset = awaitable(reset)

    def _ask(self, version: str, prices: Mapping[str, str] | None, tenant: str | None, reason: str, by: str | None) -> bool:
        fields: dict[str, Any] = {"version": version, "prices": prices, "tenant": tenant or "", "reason": reason}
        answer = ask(self._client.kernel.link, "request.prices", {**fields, "by": by or getpass.getuser()})
        status = answer["status"]
        if status == "unknown_tenant":
            raise Unknown(f"there is no tenant {tenant!r}")
        if status == "conflict":
            raise Conflict(f"price table {version} is on record with other prices, and stays so; give the new ones another version")
        if status == "invalid":
            raise Refused(f"the prices stay as they are: {answer['reason']}")
        return bool(status == "accepted")
