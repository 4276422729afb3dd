"""Runs written straight into SQL: a record as large as years of work leave it."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Engine, insert

from orchestrator.graph import Graph
from orchestrator.store import tables as t

OUTCOMES = ("succeeded",) * 12 + ("degraded", "failed", "failed", "cancelled")
NOW_MS = 1_795_000_000_000


def run_id(number: int) -> str:
    """An id in the form of all run ids; later numbers sort later."""
    return f"01{number:024d}"


def store_tenants(engine: Engine, tenants: Sequence[str]) -> None:
    from tenancy.policy import Policy

    with engine.begin() as connection:
        connection.execute(insert(t.tenant), [{"id": name, "name": name.title(), "created_at": NOW_MS} for name in tenants])
        fields = Policy().model_dump_json()
        connection.execute(insert(t.policy), [{"tenant": name, "version": 1, "fields": fields, "at": NOW_MS} for name in tenants])


def store_runs(engine: Engine, count: int, *, tenants: Sequence[str] = ("default",), graphs: int = 12, seed: int = 1) -> None:
    """Store `count` runs a second apart, the last at NOW_MS; one in fifty was run again. No nodes."""
    chance = random.Random(seed)
    spec = zlib.compress(Graph.parse({"name": "g", "nodes": [{"id": f"n{at}", "task": "synthetic.noop"} for at in range(30)]}).canonical())

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(count):
            row = _row(number, NOW_MS - (count - 1 - number) * 1000, tenants, graphs, spec, chance)
            yield row
            if number % 50 == 0:
                yield {**row, "generation": 2, "key": None, "submitted_at": row["submitted_at"] + 500, "outcome": "succeeded"}

    with engine.begin() as connection:
        batch: list[dict[str, Any]] = []
        for row in rows():
            batch.append(row)
            if len(batch) == 5_000:
                connection.execute(insert(t.run), batch)
                batch = []
        if batch:
            connection.execute(insert(t.run), batch)


def _row(number: int, at: int, tenants: Sequence[str], graphs: int, spec: bytes, chance: random.Random) -> dict[str, Any]:
    outcome = chance.choice(OUTCOMES)
    return {
        "run_id": run_id(number),
        "generation": 1,
        "tenant": tenants[number % len(tenants)],
        "key": f"key-{number}",
        "graph_name": f"graph-{number % graphs}",
        "digest": "d" * 64,
        "spec": spec,
        "status": "ended",
        "outcome": outcome,
        "submitted_at": at,
        "started_at": at + 200,
        "finished_at": at + 200 + chance.randint(500, 90_000),
        "total": 30,
        "counts": json.dumps({"succeeded": 29, "failed": 1} if outcome == "failed" else {"succeeded": 30}),
        "cost_micros": chance.randint(1_000, 2_000_000),
        "labels": json.dumps({"batch": str(number % 1000), "team": ("search", "ads")[number % 2]}, sort_keys=True),
    }
