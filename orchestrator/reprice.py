"""Pricing anew: what executions would cost by another price table, booked as adjustments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from cost.period import day_of, first_of_month_before, name_of
from cost.prices import PriceTable, read_lines
from cost.reprice import Charge, corrections
from orchestrator.pauses import on_record
from orchestrator.store import ledger
from tenancy.errors import Refused, Unavailable
from tenancy.log import append

if TYPE_CHECKING:
    from orchestrator.client import Client
    from tenancy.link import Link

BOOKED_AT_ONCE = 100
SHOWN_MAX = 100
PREFIX = "reprice"


@dataclass
class Repriced:
    """What pricing anew came to.

    micros: the difference by tenant and category. executions: how many of each tenant were priced. adjustments: how many corrections were
    booked now (of a dry run: would be). skipped: how many executions could not be, by tenant and why; `examples` names the first of them.
    """

    version: str
    micros: Counter[tuple[str, str]] = field(default_factory=Counter)
    executions: Counter[str] = field(default_factory=Counter)
    adjustments: Counter[str] = field(default_factory=Counter)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[tuple[str, str, str]] = field(default_factory=list)

    def skip(self, tenant: str, execution: str, why: str) -> None:
        """Count an execution, or a correction of it, that is not booked."""
        self.skipped[tenant, why] += 1
        if len(self.examples) < SHOWN_MAX:
            self.examples.append((tenant, execution, why))


class _Correction(NamedTuple):
    execution: str
    charge: Charge
    id: str


def reprice(
    client: Client, since: date, until: date | None, version: str, tenant: str | None, *, dry_run: bool, reason: str, by: str
) -> Repriced:
    """See `Ledger.reprice`."""
    table, link = client.prices.get(version), client.kernel.link
    seconds, _ = link.read("TIME")
    today = day_of(int(seconds) * 1000)
    first, last = ledger.number_of(since), min(today, today if until is None else ledger.number_of(until))
    if not dry_run and first < first_of_month_before(today):
        raise Refused(f"the books are open from {name_of(first_of_month_before(today))}; nothing before that day can be booked")
    tenants = [client.tenants.get(tenant).id] if tenant is not None else [each.id for each in client.tenants.list()]
    on_record(link, "nothing was priced anew", lambda: False)  # what was booked before must be seen
    found = Repriced(version)
    for name in tenants:
        pending: list[_Correction] = []
        for correction in _corrections(client, name, first, last, table, found):
            if dry_run:
                _count(found, name, correction)
                continue
            pending.append(correction)
            if len(pending) == BOOKED_AT_ONCE:
                _book(link, name, pending, version, by, reason, found)
                pending = []
        _book(link, name, pending, version, by, reason, found)
        if not dry_run and found.adjustments[name]:
            said = {"booked": found.adjustments[name], "micros": str(sum(more for (each, _), more in found.micros.items() if each == name))}
            said |= {"version": version, "from": name_of(first), "to": name_of(last), "reason": reason, "by": by}
            append(link, {"t": "ledger.repriced", "tenant": name, **said})
    if not dry_run:
        on_record(link, "the adjustments are booked", lambda: False)
    return found


def _corrections(client: Client, tenant: str, first: int, last: int, table: PriceTable, found: Repriced) -> Iterator[_Correction]:
    before, rounds = _before(ledger.repriced(client.engine, tenant, first))
    for group in ledger.charges(client.engine, tenant, first, last):
        execution = ".".join(str(group[0][name]) for name in ("run_id", "generation", "node_id", "attempt"))
        if not any(row["amount"] for row in group) and not group[0]["lines"]:
            continue  # it used nothing
        if not group[0]["lines"]:
            found.skip(tenant, execution, "its usage is not on record")
            continue
        charged: Counter[tuple[int, str]] = Counter()
        for row in group:
            charged[row["day"], row["category"]] += row["amount"]
        charged.update(before.get(execution, {}))
        try:
            wanted = corrections([Charge(*key, micros) for key, micros in sorted(charged.items())], read_lines(group[0]["lines"]), table)
        except ValueError as error:
            found.skip(tenant, execution, str(error).partition(";")[0])
            continue
        found.executions[tenant] += 1
        number = rounds.get(execution, 0) + 1
        for each in wanted:
            yield _Correction(execution, each, f"{PREFIX}:{number}:{each.category}:{name_of(each.day)}:{execution}")


def _before(rows: Iterator[Mapping[str, Any]]) -> tuple[dict[str, Counter[tuple[int, str]]], dict[str, int]]:
    """Return what was corrected of each execution, by day and category, and how often."""
    micros: dict[str, Counter[tuple[int, str]]] = {}
    rounds: dict[str, int] = {}
    for row in rows:
        _, number, _, _, execution = str(row["id"]).split(":", 4)
        micros.setdefault(execution, Counter())[row["day"], row["category"]] += row["amount"]
        rounds[execution] = max(rounds.get(execution, 0), int(number))
    return micros, rounds


def _book(link: Link, tenant: str, pending: list[_Correction], version: str, by: str, reason: str, found: Repriced) -> None:
    """Book corrections; one whose reply was lost answers `same` when this is done again."""
    calls = [
        ("cost/adjust", (tenant, each.id, str(each.charge.micros), each.charge.category, each.charge.day, by, reason, version))
        for each in pending
    ]
    for correction, (answer, _) in zip(pending, link.batch(calls) if calls else [], strict=True):
        if answer == "done":
            _count(found, tenant, correction)
        elif answer == "unknown":
            raise Unavailable(f"tenant {tenant!r} is not in Redis; the recorder writes it there, is it running?")
        elif answer != "same":
            found.skip(
                tenant,
                correction.execution,
                {"refused": "more was given back than is left", "closed": "its books are closed"}.get(
                    answer, "it was priced anew by another table at the same time"
                ),
            )


def _count(found: Repriced, tenant: str, correction: _Correction) -> None:
    found.adjustments[tenant] += 1
    found.micros[tenant, correction.charge.category] += correction.charge.micros
