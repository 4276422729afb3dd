"""The ledger as an operator handles it: correct what was charged, price it anew, read it."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from ulid import ULID

from cost.money import CATEGORIES, check_micros, parse_units, shown
from cost.period import day_of, name_of
from orchestrator.awaiting import awaitable, iterable
from orchestrator.pauses import on_record
from orchestrator.reprice import Repriced, reprice
from orchestrator.store import ledger
from tenancy.errors import Conflict, Refused, Unknown

if TYPE_CHECKING:
    from orchestrator.client import Client

ID_CHARS_MAX = 200


class Ledger:
    """The ledger of a client's platform. Every call may raise Unavailable; asking again is safe with the same id."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def adjust(
        self,
        tenant: str,
        amount: int | str,
        category: str,
        *,
        day: date | str | None = None,
        reason: str = "",
        by: str | None = None,
        id: str | None = None,  # noqa: A002 (what it is called on record)
    ) -> bool:
        """Book a correction of what a tenant was charged; once this returns it is on record. False when `id` was booked before.

        :param amount: whole micros, less than 0 to give back; or units as text ("0.06", "-0.06").
        :param category: llm, retrieval, storage, compute or other.
        :param day: of what is corrected, UTC, as a date or "2026-11-22"; today unless said. This month and the one before are open.
        :param id: makes it idempotent: at most 200 characters.

        A charge is booked whatever the limits say; at most what was charged in that day and category can be given back. Raises Refused
        where that, the day or an argument does not fit, Conflict where the id has another amount, category or day, and Unknown.
        """
        micros = self._micros(amount)
        if category not in CATEGORIES:
            raise Refused(f"there is no category {shown(category)}; there are {', '.join(CATEGORIES)}")
        key = str(ULID()).lower() if id is None else id
        if not 0 < len(key) <= ID_CHARS_MAX or not key.isprintable() or len(key.encode()) > ID_CHARS_MAX or key.startswith("reprice:"):
            raise Refused(f"an id is 1 to {ID_CHARS_MAX} printable characters that do not begin with reprice:, not {shown(key)}")
        link = self._client.kernel.link
        number = self._day(day)

        def book() -> bool:
            arguments = (tenant, key, str(micros), category, number, by or getpass.getuser(), reason, "")
            answer, told = link.call("cost/adjust", *arguments)
            if answer == "unknown":
                raise Unknown(f"there is no tenant {tenant!r}")
            if answer == "conflict":
                raise Conflict(f"adjustment {key!r} of tenant {tenant!r} is on record with another amount, category or day")
            if answer == "closed":
                raise Refused(f"the books are open from {name_of(int(told))} until today; {name_of(number)} is not among these days")
            if answer == "refused":
                raise Refused(
                    f"tenant {tenant!r} was charged {told} micros of {category} on {name_of(number)}; no more than that can be given back"
                )
            return bool(answer == "done")

        return on_record(link, f"adjustment {key} is booked", book)

    def entries(self, tenant: str, month: date | str) -> Iterator[Mapping[str, Any]]:
        """Yield the entries of a tenant's month ("2026-11", or a date in it), by day, time and id; any number, a thousand in memory.

        Raises Refused for what is no month, and Unknown.
        """
        try:
            first = date.fromisoformat(f"{month}-01") if isinstance(month, str) else month.replace(day=1)
        except ValueError:
            raise Refused(f"{shown(month)} is no month such as 2026-11") from None
        return ledger.entries(self._client.engine, self._client.tenants.get(tenant).id, first)

    def reprice(
        self,
        since: date,
        version: str,
        *,
        until: date | None = None,
        tenant: str | None = None,
        dry_run: bool = False,
        reason: str = "",
        by: str | None = None,
    ) -> Repriced:
        """Book what executions of the days `since` to `until` (today) cost more or less by the price table `version`; see `Repriced`.

        Entries stay as they are: each difference is an adjustment of its own, in the day of what it corrects, booked once however often
        this is called. tenant: only this one's. Raises Unknown, and Refused for days whose books are closed.
        """
        return reprice(self._client, since, until, version, tenant, dry_run=dry_run, reason=reason, by=by or getpass.getuser())

    # -- the same for asyncio: one implementation, in threads -------------------------------------

    aadjust = awaitable(adjust)
    aentries = iterable(entries)
    areprice = awaitable(reprice)

    @staticmethod
    def _micros(amount: int | str) -> int:
        try:
            if isinstance(amount, str):
                micros = -parse_units(amount[1:]) if amount.startswith("-") else parse_units(amount)
            else:
                micros = -check_micros(-amount) if amount < 0 else check_micros(amount)
        except (TypeError, ValueError) as error:
            raise Refused(str(error)) from None
        if micros == 0:
            raise Refused("an adjustment of 0 changes nothing")
        return micros

    def _day(self, day: date | str | None) -> int:
        if day is None:
            seconds, _ = self._client.kernel.link.read("TIME")
            return day_of(int(seconds) * 1000)
        try:
            found = date.fromisoformat(day) if isinstance(day, str) else day
        except ValueError:
            raise Refused(f"{shown(day)} is no day such as 2026-11-22") from None
        if ledger.number_of(found) < 0:
            raise Refused(f"{found} is before 1970")
        return ledger.number_of(found)
