"""How the platform stands now: pools, line, recorder, incidents. Nothing here names a tenant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import Engine, func, select

from orchestrator import keys
from orchestrator.store import tables as t
from orchestrator.store.position import Position
from orchestrator.store.read import open_record
from tenancy import keys as names
from tenancy.link import Link

POOLS_MAX = 200
"""Pools that are told one by one, by name."""


def of_redis(link: Link) -> Iterator[Metric]:
    """Gauges that Redis has, in two round trips. Raises Unavailable."""
    pools = sorted(map(str, link.read("SMEMBERS", names.POOLS)))[:POOLS_MAX]
    plain: list[tuple[str, ...]] = [
        ("HGETALL", names.RUNNING),
        ("HGETALL", names.LOAD),
        ("HGETALL", names.LOADING),
        ("HVALS", names.PARKED_BY),
        ("HVALS", names.DELAYED_BY),
        ("HLEN", names.LETTERS),
        ("ZCARD", names.WAITING),
        ("ZCARD", names.INCARNATIONS),
        ("SMEMBERS", names.PAUSED),
    ]
    replies = link.read_at_once(*plain, *(command for pool in pools for command in _of_pool(pool)))
    running, load, loading, parked, delayed, letters, waiting, live, paused = replies[: len(plain)]
    messages = GaugeMetricFamily("headgate_queue_messages", "Messages of a pool: in line, or in workers' hands.", labels=("pool", "state"))
    slots = GaugeMetricFamily("headgate_pool_slots", "Slots of the pool's live workers.", labels=("pool",))
    loads = GaugeMetricFamily("headgate_pool_load", "Messages that could run now, or do.", labels=("pool",))
    closed = GaugeMetricFamily("headgate_pool_parked", "1 while new runs wait because the pool has enough to do.", labels=("pool",))
    for at, pool in enumerate(pools):
        depth, offered, pressure = replies[len(plain) + 3 * at :][:3]
        messages.add_metric((pool, "queued"), sum(map(int, depth)))
        messages.add_metric((pool, "running"), int(running.get(pool, 0)))
        slots.add_metric((pool,), sum(map(int, offered)))
        loads.add_metric((pool,), sum(int(each.get(pool, 0)) for each in (load, running, loading)))
        closed.add_metric((pool,), pressure == "parked")
    yield from (messages, slots, loads, closed)
    yield _gauge("headgate_messages_parked", "Messages that wait for a place, a limit, or the end of a pause.", sum(map(int, parked)))
    yield _gauge("headgate_messages_delayed", "Messages that wait for their time.", sum(map(int, delayed)))
    yield _gauge("headgate_dead_letters", "Messages that three workers died with.", int(letters))
    yield _gauge("headgate_tenants_waiting", "Tenants with runs that wait to be admitted.", int(waiting))
    yield _gauge("headgate_workers", "Live workers.", int(live))
    yield _gauge("headgate_paused", "1 while the platform is paused.", "platform" in paused)
    yield _gauge("headgate_scopes_paused", "Tenants and runs that are paused.", len(set(paused) - {"platform"}))
    yield from _recorder(link)


def of_record(engine: Engine) -> Iterator[Metric]:
    """Gauges that the record has, from indexes. Raises Unavailable."""
    status = t.run.c.status
    with open_record(engine) as connection:
        counted = connection.execute(select(status, func.count().label("n")).where(status.in_(t.LIVE)).group_by(status)).all()
        incidents = connection.execute(select(func.count()).select_from(t.incident)).scalar_one()
    found = {row.status: int(row.n) for row in counted}
    live = GaugeMetricFamily("headgate_runs_live", "Runs that are not over.", labels=("status",))
    for each in t.LIVE:
        live.add_metric((each,), found.get(each, 0))
    yield live
    yield _gauge("headgate_incidents", "What must never happen and did, on record.", incidents)


def up(part: str, text: str, *, works: bool) -> Metric:
    """Return whether a service answered; a scrape says so instead of failing."""
    return _gauge(f"headgate_{part}_up", text, works)


def _recorder(link: Link) -> Iterator[Metric]:
    """How far the record is behind the log: by the age of the first event that is not in it, as admission sees it."""
    recorded = str(link.read("GET", keys.RECORDED) or "0-0")
    seconds, micros = link.read("TIME")
    first = link.read("XRANGE", names.EVENTS, f"({recorded}", "+", "COUNT", 1)
    last = link.read("XREVRANGE", names.EVENTS, "+", "-", "COUNT", 1)
    behind = 0.0
    if first:
        at_ms = int(json.loads(_field(first[0]))["at"])
        behind = max(0.0, int(seconds) + int(micros) / 1e6 - at_ms / 1000)
    done = Position.parse(recorded)
    newest = Position.parse(str(last[0][0])) if last else done
    # Of an epoch that the recorder has not come to, the events of the one before are not known: a rebuild is at work.
    missing = newest.seq - done.seq if newest.epoch == done.epoch else newest.seq
    yield _gauge("headgate_recorder_lag_seconds", "Age of the first event that is not on record.", behind)
    yield _gauge("headgate_recorder_lag_events", "Events that are not on record.", max(0, missing) if first else 0)


def _field(entry: Any) -> str:
    fields = entry[1]
    return str(fields["e"] if isinstance(fields, Mapping) else fields[fields.index("e") + 1])


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric((), float(value))
    return family


def _of_pool(pool: str) -> list[tuple[str, ...]]:
    return [("HVALS", names.depth(pool)), ("HVALS", names.slots(pool)), ("HGET", names.pressure(pool), "state")]
