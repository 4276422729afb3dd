"""How each tenant stands now: money against limits, levels, messages. It names tenants: only for who may know them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import Engine

from cost import keys as money
from cost.levels import NAMES, read_level
from cost.period import day_of, month_of, name_of
from orchestrator.store.spend import tenant_ids
from tenancy import keys as names
from tenancy.link import Link

LOOKED_AT = 10_000
"""Tenants that are looked at, by id."""
SHOWN_MAX = 1_000
"""Tenants that are told: those with most at stake, by what they have committed today and what of them waits and runs."""
AT_ONCE = 200
"""Tenants in one round trip, which blocks Redis for about a millisecond."""


@dataclass(frozen=True)
class Standing:
    """A tenant at this moment; amounts in micros, None: it has no such limit."""

    tenant: str
    settled: int
    month_settled: int
    reserved: int
    held: int
    limit_day: int | None
    limit_month: int | None
    level: int
    running_runs: int
    running: int
    queued: int
    parked: int
    delayed: int

    @property
    def exposure(self) -> int:
        """Of the day: settled in it, open reservations of whatever day, and holds."""
        return self.settled + self.reserved + self.held


def of_tenants(link: Link, engine: Engine) -> Iterator[Metric]:
    """Gauges by tenant. Raises Unavailable."""
    found = sorted(standings(link, engine), key=lambda each: (-each.exposure, -each.queued - each.running, each.tenant))
    shown = found[:SHOWN_MAX]
    amounts = GaugeMetricFamily("headgate_tenant_micros", "Money of today, in micros: settled, reserved, held.", labels=("tenant", "what"))
    exposure = GaugeMetricFamily("headgate_tenant_exposure_micros", "What counts against the limit of the day.", labels=("tenant",))
    limits = GaugeMetricFamily("headgate_tenant_limit_micros", "Limit of a day or month, if there is one.", labels=("tenant", "period"))
    month = GaugeMetricFamily("headgate_tenant_month_micros", "What counts against the limit of the month.", labels=("tenant",))
    level = GaugeMetricFamily("headgate_tenant_level", "0 healthy, 1 warning, 2 critical, 3 exceeded; of day or month.", labels=("tenant",))
    messages = GaugeMetricFamily("headgate_tenant_messages", "Messages of a tenant, by where they are.", labels=("tenant", "state"))
    runs = GaugeMetricFamily("headgate_tenant_runs", "Runs of a tenant that were admitted and are not over.", labels=("tenant",))
    for each in shown:
        for what in ("settled", "reserved", "held"):
            amounts.add_metric((each.tenant, what), getattr(each, what))
        for state in ("queued", "running", "parked", "delayed"):
            messages.add_metric((each.tenant, state), getattr(each, state))
        exposure.add_metric((each.tenant,), each.exposure)
        month.add_metric((each.tenant,), each.month_settled + each.reserved + each.held)
        for period, limit in (("day", each.limit_day), ("month", each.limit_month)):
            if limit is not None:
                limits.add_metric((each.tenant, period), limit)
        level.add_metric((each.tenant,), each.level)
        runs.add_metric((each.tenant,), each.running_runs)
    yield from (amounts, exposure, month, limits, level, messages, runs)
    left_out = GaugeMetricFamily("headgate_tenants_left_out", "Tenants with less at stake than those that are told.")
    left_out.add_metric((), len(found) - len(shown))
    yield left_out


def standings(link: Link, engine: Engine) -> list[Standing]:
    """Return how tenants stand. Raises Unavailable."""
    ids = tenant_ids(engine, None, None, LOOKED_AT)
    day = day_of(link.now_ms())
    queued: Counter[str] = Counter()
    for pool in link.read("SMEMBERS", names.POOLS):
        for field, count in link.read("HGETALL", names.depth(pool)).items():
            queued[field.rpartition("|")[0]] += int(count)
    parked, delayed = link.read("HGETALL", names.PARKED_BY), link.read("HGETALL", names.DELAYED_BY)
    found = []
    for first in range(0, len(ids), AT_ONCE):
        piece = ids[first : first + AT_ONCE]
        replies = link.read_at_once(*(command for tenant in piece for command in _of_tenant(tenant, day)))
        for at, tenant in enumerate(piece):
            (settled,), (month_settled,), policy, levels, running = replies[5 * at : 5 * at + 5]
            reserved, held, running_runs, limit_day, limit_month = policy
            found.append(
                Standing(
                    tenant=tenant,
                    settled=int(settled or 0),
                    month_settled=int(month_settled or 0),
                    reserved=int(reserved or 0),
                    held=int(held or 0),
                    limit_day=int(limit_day) if limit_day else None,
                    limit_month=int(limit_month) if limit_month else None,
                    level=max(_level(levels[0], name_of(day)), _level(levels[1], name_of(day)[:7])),
                    running_runs=int(running_runs or 0),
                    running=int(running),
                    queued=queued[tenant],
                    parked=int(parked.get(tenant, 0)),
                    delayed=int(delayed.get(tenant, 0)),
                )
            )
    return found


def _of_tenant(tenant: str, day: int) -> list[tuple[str | int, ...]]:
    return [
        ("HMGET", money.spent(tenant, day), "settled"),
        ("HMGET", money.spent_in_month(tenant, month_of(day)), "settled"),
        ("HMGET", money.tenant(tenant), "reserved", "held", "running", "limit_day", "limit_month"),
        ("HMGET", money.level(tenant), "day", "month"),
        ("SCARD", names.held(f"tenant:{tenant}")),
    ]


def _level(row: str | None, period: str) -> int:
    name = read_level(row, period).name
    return NAMES.index(name) + 1 if name in NAMES else 0
