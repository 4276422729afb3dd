"""What executions cost, learned from runs that ended: a mean for each tenant, task and variant.

Part of the recorder's transaction, so each run counts once; and bounded, whatever the runs are like.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from cost.estimate import Learned
from cost.money import CATEGORIES, MICROS_MAX
from orchestrator.store import tables as t

NODES_MAX = 2_000
"""Nodes that one batch of events is learned from."""

SPEC_BYTES_MAX = 100_000
"""Deflated size of the largest graph that is learned from: reading a larger one would hold the record up."""

TEXT_BYTES_MAX = 4_000_000

Key = tuple[str, str, str]


def learn(connection: Connection, ended: Collection[tuple[str, int]]) -> None:
    """Add what the runs that ended say of their tasks: the cost of each node that succeeded at its first attempt."""
    if not ended:
        return
    tasks = dict(_tasks(connection, ended))
    if not tasks:
        return
    costs: dict[Key, list[dict[str, int]]] = {}
    for row in _nodes(connection, tasks):
        tenant, names = tasks[row.run_id, row.generation]
        if (name := names.get(row.node_id) or names.get(_items_of(row.node_id))) is not None:
            cats = {category: micros for category in CATEGORIES if (micros := getattr(row, f"cost_{category}"))}
            if all(0 <= micros <= MICROS_MAX for micros in cats.values()):
                costs.setdefault((tenant, name, row.verdict or ""), []).append(cats)
    for key, found in costs.items():
        _write(connection, key, _read(connection, key).add(found))


def _tasks(connection: Connection, ended: Collection[tuple[str, int]]) -> Iterable[tuple[tuple[str, int], tuple[str, dict[str, str]]]]:
    columns = select(t.run.c.run_id, t.run.c.generation, t.run.c.tenant, t.run.c.spec)
    for row in connection.execute(columns.where(t.run.c.run_id.in_({run_id for run_id, _ in ended}))):
        if (row.run_id, row.generation) in ended and row.spec is not None and len(row.spec) <= SPEC_BYTES_MAX:
            yield (row.run_id, row.generation), (row.tenant, _task_names(row.spec))


def _task_names(spec: bytes) -> dict[str, str]:
    """Return task by node, of a map by `id.*`; nothing of a spec that does not read, which must not stop the record of everybody."""
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(spec, TEXT_BYTES_MAX)
        nodes = [] if unpack.unconsumed_tail else json.loads(text)["nodes"]
        # A map itself costs nothing, and says nothing of its task.
        return {f"{node['id']}.*" if "map" in node else str(node["id"]): str(node["task"]) for node in nodes}
    except (zlib.error, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _items_of(node: str) -> str:
    """Return how a map is named here whose item a node may be."""
    above, _, last = node.rpartition(".")
    return f"{above}.*" if last.isdecimal() else ""


def _nodes(connection: Connection, runs: Collection[tuple[str, int]]) -> Iterable[Any]:
    n = t.node.c
    clean = (n.outcome == "succeeded") & (n.fails == 0) & (n.lost == 0) & n.run_id.in_({run_id for run_id, _ in runs})
    for row in connection.execute(select(t.node).where(clean).limit(NODES_MAX)):
        if (row.run_id, row.generation) in runs:
            yield row


def _where(key: Key) -> Any:
    tenant, task, variant = key
    return (t.learned.c.tenant == tenant) & (t.learned.c.task == task) & (t.learned.c.variant == variant)


def _read(connection: Connection, key: Key) -> Learned:
    row = connection.execute(select(t.learned).where(_where(key))).mappings().first()
    return Learned() if row is None else Learned(row["count"], {category: row[f"sum_{category}"] for category in CATEGORIES})


def _write(connection: Connection, key: Key, learned: Learned) -> None:
    tenant, task, variant = key
    sums = {f"sum_{category}": (learned.sums or {}).get(category, 0) for category in CATEGORIES}
    connection.execute(delete(t.learned).where(_where(key)))
    connection.execute(insert(t.learned), {"tenant": tenant, "task": task, "variant": variant, "count": learned.count, **sums})
