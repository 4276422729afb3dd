"""A record as large as months of work leave it: real runs, copied row by row under other names, tenants and times."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Table, insert, select
from sqlalchemy.engine import Connection

from cost.period import day_of, name_of
from orchestrator.store import tables as t
from tenancy.policy import Policy

BATCH = 500
"""Runs that are written at once: their events lie among each other, as those of runs in flight do."""
COPIED: tuple[Table, ...] = (t.run, t.node, t.event, t.ledger, t.usage, t.decision)
TIMES = ("at", "submitted_at", "started_at", "finished_at", "queued_at", "applied_at")
ENFORCEMENTS = ("enforce",) * 18 + ("observe", "off")


@dataclass(frozen=True)
class Template:
    """A run that was: its rows by table, the newest of its times (ms), and how often it is copied among a hundred."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    run_id: str
    tenant: str
    at: int
    weight: int


def template(engine: Engine, run_id: str, weight: int) -> Template:
    """Return what is on record of a run."""
    with engine.connect() as connection:
        rows = {
            table.name: [dict(row) for row in connection.execute(select(table).where(table.c.run_id == run_id)).mappings()]
            for table in COPIED
        }
    (run,) = rows["run"]
    return Template(rows, run_id, str(run["tenant"]), int(run["submitted_at"]), weight)


def run_id(number: int) -> str:
    """Return an id in the form of all run ids; later numbers sort later."""
    return f"00{number:024d}"


def store_tenants(engine: Engine, tenants: Sequence[str], now_ms: int) -> None:
    """Store tenants with their policies; of some the limits are only observed, or off."""
    with engine.begin() as connection:
        connection.execute(insert(t.tenant), [{"id": name, "name": name.title(), "created_at": now_ms} for name in tenants])
        fields = [Policy(enforcement=how).model_dump_json() for how in ENFORCEMENTS]  # type: ignore[arg-type]
        rows = [{"tenant": name, "version": 1, "fields": fields[at % len(fields)], "at": now_ms} for at, name in enumerate(tenants)]
        connection.execute(insert(t.policy), rows)


def store_runs(
    engine: Engine,
    templates: Sequence[Template],
    count: int,
    tenants: Sequence[str],
    *,
    graphs: int,
    until_ms: int,
    over_ms: int,
) -> dict[str, int]:
    """Store `count` copies of the templates, spread evenly over the `over_ms` before `until_ms`; return how many rows each table got.

    Their events are of epoch 0, before anything that a stack writes.
    """
    chance = random.Random(1)
    stored = dict.fromkeys((table.name for table in COPIED), 0)
    chosen = chance.choices(templates, [each.weight for each in templates], k=count)
    seq = 0
    for first in range(0, count, BATCH):
        with engine.begin() as connection:
            # Indexes grow everywhere at once: with SQLite's 2 MB each page would be written many times.
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA cache_size=-300000")
            rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in COPIED}
            for number in range(first, min(first + BATCH, count)):
                at = until_ms - over_ms + number * over_ms // count
                # As of users: a few tenants and graphs have most of the runs.
                tenant = tenants[int(len(tenants) * chance.random() ** 2)]
                for name, row in _copied(chosen[number], number, tenant, int(graphs * chance.random() ** 2), at):
                    rows[name].append(row)
            rows["event"].sort(key=lambda row: row["at"])
            for row in rows["event"]:
                seq += 1
                row.update(epoch=0, seq=seq)
            for table in COPIED:
                if rows[table.name]:
                    _insert(connection, table, rows[table.name])
                    stored[table.name] += len(rows[table.name])
    return stored


def store_ticks(engine: Engine, schedules: Sequence[tuple[str, str]], each: int, until_ms: int) -> int:
    """Store so many times of each schedule (tenant and name), a day apart, with stored runs; return how many those are."""
    day_ms = 86_400_000
    rows = [
        {
            "tenant": tenant,
            "schedule": name,
            "at": until_ms - number * day_ms,
            "state": "submitted",
            "reason": "",
            "run_id": run_id(at * each + number),
        }
        for at, (tenant, name) in enumerate(schedules)
        for number in range(1, each + 1)
    ]
    with engine.begin() as connection:
        connection.execute(insert(t.tick), [{**row, "decided_at": row["at"], "retry_at": 0} for row in rows])
    return len(rows)


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    # By the driver itself: compiled once, in a fifth of the time that SQLAlchemy takes for so many rows.
    compiled = insert(table).compile(dialect=connection.dialect)
    names = list(compiled.positiontup or ())
    if names:
        connection.exec_driver_sql(str(compiled), [tuple(row[name] for name in names) for row in rows])
    else:
        connection.execute(insert(table), rows)


def _copied(source: Template, number: int, tenant: str, graph: int, at: int) -> Iterator[tuple[str, dict[str, Any]]]:
    shift, name = at - source.at, run_id(number)
    for table, rows in source.rows.items():
        for row in rows:
            copy = {key: _renamed(value, source, name, tenant) for key, value in row.items()}
            for key in TIMES:
                if copy.get(key) is not None:
                    copy[key] += shift
            if table == "event":
                copy["data"] = copy["data"].replace(f'"at":{row["at"]}', f'"at":{copy["at"]}')
            elif table == "ledger":
                copy["day"] = day_of(copy["at"])
                copy["period"] = name_of(copy["day"])
            elif table == "run":
                labels = json.dumps({"batch": str(number % 1000), "team": ("search", "ads")[number % 2]}, sort_keys=True)
                copy.update(key=f"key-{number}", graph_name=f"graph-{graph}", labels=labels)
            yield table, copy


def _renamed(value: Any, source: Template, run: str, tenant: str) -> Any:
    return value.replace(source.run_id, run).replace(source.tenant, tenant) if isinstance(value, str) else value
