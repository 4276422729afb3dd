"""The evidence: the record in SQL and what is left in Redis, read when all is quiet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import redis
from sqlalchemy import Engine, select

from benchmarks.chaos.log import Entry, Event, Evidence, NodeShape, RunKey, RunRow
from orchestrator.replay import replay_run
from orchestrator.store import tables as t

EMPTY = ("msg", "meta", "once", "delayed", "runs", "dying")
"""Keys after `hg1:` that are empty when no run is live."""
EMPTY_EACH = ("queue:", "unacked:", "lease:", "due:", "open:", "cascade:")
"""Beginnings of keys that are empty when no run is live."""

_SIZE = {"hash": "HLEN", "list": "LLEN", "zset": "ZCARD", "set": "SCARD"}


def leftovers(client: redis.Redis) -> dict[str, int]:
    """Return how much is left under the keys that must be empty; an empty mapping is what is wanted."""
    names = [f"hg1:{name}" for name in EMPTY]
    names += [key for start in EMPTY_EACH for key in client.scan_iter(f"hg1:{start}*", count=1000)]
    kinds = {name: str(client.type(name)) for name in names}
    # A string is the lease of a pass, as over the schedules, and not those of a run.
    sizes = {name: int(client.execute_command(_SIZE.get(kind, "EXISTS"), name)) for name, kind in kinds.items() if kind != "string"}
    # A node that three workers died with leaves its message as a dead letter, for a person to look at.
    tags: Any = client.hkeys("hg1:letters")
    metas: Any = client.hmget("hg1:meta", tags) if tags else []
    letters = [json.loads(meta) for meta in metas if meta is not None]
    for name, count in (("msg", len(letters)), ("meta", len(letters)), ("once", sum(letter["o"] != "" for letter in letters))):
        sizes[f"hg1:{name}"] -= count
    return {name: size for name, size in sizes.items() if size}


def executes(client: redis.Redis, pid: int) -> bool:
    """Say whether the worker with process `pid` has an execution under way; no, while Redis is away."""
    try:
        runs: Any = client.zrange("hg1:runs", 0, -1)
        leases: Any = [lease for run in runs for lease in client.hvals(f"hg1:lease:{run}")]
        return any(lease.split("|")[1].split(".")[-2:-1] == [str(pid)] for lease in leases)
    except redis.RedisError:
        return False


def unfinished(engine: Engine) -> list[str]:
    """Return the runs that have not ended by the record."""
    with engine.connect() as connection:
        rows = connection.execute(select(t.run.c.run_id).where(t.run.c.status.in_(t.LIVE)))
        return [str(row.run_id) for row in rows]


def nodes_of(spec: bytes) -> list[str]:
    """Return the nodes of a graph on record."""
    return [str(node["id"]) for node in json.loads(spec)["nodes"]]


def cursor(engine: Engine) -> str:
    """Return up to where the log is in SQL."""
    with engine.connect() as connection:
        row = connection.execute(select(t.cursor.c.epoch, t.cursor.c.seq)).one()
    return f"{row.epoch}-{row.seq}"


def last_event(client: redis.Redis) -> str:
    """Return up to where the log is in Redis."""
    newest: Any = client.xrevrange("hg1:events", count=1)
    return str(newest[0][0]) if newest else "0-0"


def gather(engine: Engine, client: redis.Redis, shapes: Mapping[RunKey, Mapping[str, NodeShape]], submitted: Mapping[str, str]) -> Evidence:
    """Return the evidence of everything in this home."""
    with engine.connect() as connection:
        events = connection.execute(select(t.event.c.epoch, t.event.c.seq, t.event.c.data).order_by(t.event.c.epoch, t.event.c.seq)).all()
        runs = connection.execute(select(t.run)).all()
        nodes = connection.execute(select(t.node.c.run_id, t.node.c.generation, t.node.c.node_id, t.node.c.outcome)).all()
        ledger = connection.execute(select(t.ledger).order_by(t.ledger.c.id)).all()
        incidents = connection.execute(select(t.incident.c.id, t.incident.c.detail)).all()
        tenants = [str(row.id) for row in connection.execute(select(t.tenant.c.id))]
    return Evidence(
        events=[Event(row.epoch, row.seq, json.loads(row.data)) for row in events],
        shapes=shapes,
        runs=[RunRow(r.run_id, r.tenant, r.status, r.outcome, r.cost_micros, r.generation) for r in runs],
        outcomes={(row.run_id, row.generation, row.node_id): row.outcome for row in nodes},
        ledger=[Entry(r.run_id, r.generation, r.node_id, r.attempt, r.tenant, r.kind, r.category, r.amount, r.day) for r in ledger],
        counters={tenant: _numbers(client, f"hg1:tenant:{tenant}", ("held", "running")) for tenant in tenants},
        spent={
            (str(key).split(":")[2], int(str(key).split(":")[3])): _numbers(client, str(key), None)
            for key in client.scan_iter("hg1:spent:*:[0-9]*", count=1000)
            if str(key).split(":")[3].isdigit()  # the others are months
        },
        leftovers=leftovers(client),
        incidents=[f"{row.id} {row.detail}" for row in incidents],
        submitted=submitted,
        keys=[str(run.key) for run in runs if run.key],
    )


def replays(engine: Engine, key: bytes) -> list[str]:
    """Return what replaying each run from its log finds to differ: `run.generation: sentence`."""
    with engine.connect() as connection:
        names = connection.execute(select(t.run.c.run_id, t.run.c.generation)).all()
    found = [replay_run(engine, row.run_id, row.generation, key) for row in names]
    return [f"{each.run_id}.{each.generation}: {difference}" for each in found for difference in each.differences]


def dump(client: redis.Redis, run_ids: list[str]) -> dict[str, Any]:
    """Return what Redis holds of `run_ids` and of the transport, for a person who looks for the cause."""
    found: dict[str, Any] = {}
    general = ("hg1:meta", "hg1:once", "hg1:delayed", "hg1:runs", "hg1:dying", "hg1:incarnations", "hg1:epoch", "hg1:serves")
    kinds = ("run", "state", "wait", "attempt", "lease", "notbefore", "due", "open", "res", "purse", "fault", "cascade")
    names = [*general, *(f"hg1:{kind}:{run_id}.1" for run_id in run_ids for kind in kinds)]
    for pattern in ("queue", "unacked", "ready", "sleepers", "bell"):
        names += sorted(str(key) for key in client.scan_iter(f"hg1:{pattern}:*", count=1000))
    for name in names:
        found[name] = _whole(client, name)
    return {name: value for name, value in found.items() if value}


def _numbers(client: redis.Redis, key: str, names: tuple[str, ...] | None) -> dict[str, int]:
    fields: Any = client.hgetall(key)
    return {name: int(value) for name, value in fields.items() if names is None or name in names}


def _whole(client: redis.Redis, key: str) -> Any:
    kind = str(client.type(key))
    if kind == "hash":
        return client.hgetall(key)
    if kind == "list":
        return client.lrange(key, 0, -1)
    if kind == "set":
        return sorted(client.smembers(key))
    if kind == "zset":
        return client.zrange(key, 0, -1, withscores=True)
    return client.get(key) if kind == "string" else None
