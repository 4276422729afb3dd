"""Reading the record: plain frozen values for client, command line and console, never rows of the database."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError, ProgrammingError

from cost.money import CATEGORIES
from orchestrator.json_pieces import nodes_of
from tenancy.errors import Unavailable, Unknown
from tenancy.policy import Policy

from . import tables as t
from .expansions import became, expansions
from .position import START, Position
from .sums import total
from .writer import read_cursor

LIMIT_MAX = 10_000


@dataclass(frozen=True)
class RunView:
    """One generation of a run. Times are epoch seconds, amounts micros; None is: not yet, or none."""

    run_id: str
    generation: int
    tenant: str
    key: str | None
    graph: str
    digest: str
    status: str
    outcome: str | None
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    total: int | None
    budget: int | None
    hold: int | None
    estimate: int | None
    floor: int | None
    cost_micros: int
    counts: Mapping[str, int]
    reason: str | None
    priority: int
    labels: Mapping[str, str]


@dataclass(frozen=True)
class NodeView:
    """A node of a run; `state` is pending, due, running or ended. `result` is None or JSON text, `error` None or its JSON read.

    `adopted` is the earlier generation that ran it, None where this one did.
    """

    id: str
    task: str | None
    required: bool
    state: str
    outcome: str | None = None
    reason: str | None = None
    attempt: int = 0
    fails: int = 0
    lost: int = 0
    worker: str | None = None
    verdict: str | None = None
    queued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    cost_micros: int = 0
    cost: Mapping[str, int] = field(default_factory=dict)
    result: str | None = None
    error: Any = None
    adopted: int | None = None


@dataclass(frozen=True)
class EventView:
    """An event of the log: its position, time (epoch seconds), type, and the whole of it as JSON values."""

    position: Position
    at: float
    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class TenantView:
    """A tenant with the policy that holds; `version` counts its policies."""

    id: str
    name: str
    status: str
    currency: str
    created_at: float
    version: int
    policy: Policy


@dataclass(frozen=True)
class PauseView:
    """A scope that is paused: `platform`, `tenant:{id}` or `run:{run}.{generation}`; by whom, why, and since when (epoch seconds)."""

    scope: str
    by: str
    reason: str
    at: float


@dataclass(frozen=True)
class AuditView:
    """Who did what: when (epoch seconds), to which field and from what to what, where something had a value before.

    `said` is what else is known of it, by name.
    """

    at: float
    actor: str
    action: str
    tenant: str | None
    target: str | None
    field: str | None
    old: Any
    new: Any
    reason: str | None
    version: int | None
    said: Mapping[str, Any]


@contextmanager
def open_record(engine: Engine) -> Iterator[Connection]:
    """Give a connection that reads the record. Raises Unavailable when there is none."""
    try:
        with engine.connect() as connection:
            yield connection
    except (OperationalError, ProgrammingError) as error:
        why = str(error.orig).partition("\n")[0]  # PostgreSQL shows the statement below
        raise Unavailable(f"the record cannot be read ({why}); it is made when the recorder first starts") from error


def get_run(engine: Engine, run_id: str, generation: int | None = None) -> RunView:
    """Return a run, in its newest generation unless one is named. Raises Unknown if there is none, Unavailable."""
    with open_record(engine) as connection:
        return _run_view(_run_row(connection, run_id, generation))


def list_runs(
    engine: Engine,
    *,
    tenant: str | None = None,
    status: str | None = None,
    outcome: str | None = None,
    graph: str | None = None,
    key: str | None = None,
    limit: int = 100,
) -> list[RunView]:
    """Return the newest runs that fit all of the filters given, newest first, at most `limit` (1 to 10,000)."""
    wanted = {"tenant": tenant, "status": status, "outcome": outcome, "graph_name": graph, "key": key}
    statement = select(*_run_columns()).where(*(t.run.c[name] == value for name, value in wanted.items() if value is not None))
    newest = statement.order_by(t.run.c.submitted_at.desc(), t.run.c.run_id.desc(), t.run.c.generation.desc())
    with open_record(engine) as connection:
        return [_run_view(dict(row)) for row in connection.execute(newest.limit(max(1, min(limit, LIMIT_MAX)))).mappings()]


def get_nodes(engine: Engine, run_id: str, generation: int | None = None) -> list[NodeView]:
    """Return every node of a run in the order of its graph, also those that nothing has happened to yet. Raises Unknown."""
    with open_record(engine) as connection:
        run = _run_row(connection, run_id, generation)
        of_run = select(t.node).where(t.node.c.run_id == run_id, t.node.c.generation == run["generation"])
        rows = {str(row["node_id"]): dict(row) for row in connection.execute(of_run.order_by(t.node.c.node_id)).mappings()}
        spec = {str(node["id"]): node for node in _spec(connection, run)}
        grown = _grown(connection, run, spec) if rows.keys() - spec.keys() else {}
    told = [_node_view(node_id, rows.pop(node_id, None), node) for node_id, node in {**spec, **grown}.items()]
    return told + [_node_view(node_id, row, {}) for node_id, row in rows.items()]


def traceparent(engine: Engine, run_id: str) -> str | None:
    """Return the producer's span that a run was submitted with, None where there was none. Raises Unavailable."""
    first = (t.run.c.run_id == run_id) & (t.run.c.generation == 1)
    with open_record(engine) as connection:
        found: str | None = connection.execute(select(t.run.c.trace).where(first)).scalar()
    return found


def get_graph(engine: Engine, run_id: str, generation: int | None = None) -> bytes | None:
    """Return the graph that a run was submitted with, canonical JSON; None where it was never recorded. Raises Unknown."""
    with open_record(engine) as connection:
        return _spec_bytes(connection, _run_row(connection, run_id, generation))


def get_events(
    engine: Engine, run_id: str, generation: int | None = None, *, after: Position = START, limit: int = LIMIT_MAX
) -> list[EventView]:
    """Return the events of a run after a position, in their order, at most `limit`. Raises Unknown."""
    with open_record(engine) as connection:
        run = _run_row(connection, run_id, generation)
        of_run = select(t.event).where(t.event.c.run_id == run_id, t.event.c.generation == run["generation"])
        later = (t.event.c.epoch > after.epoch) | ((t.event.c.epoch == after.epoch) & (t.event.c.seq > after.seq))
        rows = connection.execute(of_run.where(later).order_by(t.event.c.epoch, t.event.c.seq).limit(limit)).all()
    return [EventView(Position(row.epoch, row.seq), row.at / 1000, row.type, json.loads(row.data)) for row in rows]


def run_cost(engine: Engine, run_id: str, generation: int | None = None) -> dict[str, int]:
    """Return what a run was charged, micros by category, from the ledger; categories without a charge are left out."""
    with open_record(engine) as connection:
        run = _run_row(connection, run_id, generation)
        return _cost(connection, run)


def tenants(engine: Engine, only: str | None = None) -> list[TenantView]:
    """Return all tenants, or only the one of that id, with the policies that hold, by id."""
    newest = select(t.policy.c.tenant, func.max(t.policy.c.version).label("version")).group_by(t.policy.c.tenant).subquery()
    statement = (
        select(t.tenant, t.policy.c.version, t.policy.c.fields)
        .join(newest, newest.c.tenant == t.tenant.c.id)
        .join(t.policy, (t.policy.c.tenant == t.tenant.c.id) & (t.policy.c.version == newest.c.version))
    )
    if only is not None:
        statement = statement.where(t.tenant.c.id == only)
    with open_record(engine) as connection:
        return [
            TenantView(
                row.id, row.name, row.status, row.currency, row.created_at / 1000, row.version, Policy.model_validate_json(row.fields)
            )
            for row in connection.execute(statement.order_by(t.tenant.c.id))
        ]


def get_tenant(engine: Engine, tenant: str) -> TenantView:
    """Return one tenant. Raises Unknown."""
    for found in tenants(engine, tenant):
        return found
    raise Unknown(f"there is no tenant {tenant!r}")


def policies(engine: Engine, tenant: str) -> dict[int, Policy]:
    """Return every version of a tenant's policy, oldest first; empty for an unknown tenant."""
    versions = select(t.policy.c.version, t.policy.c.fields).where(t.policy.c.tenant == tenant).order_by(t.policy.c.version)
    with open_record(engine) as connection:
        return {row.version: Policy.model_validate_json(row.fields) for row in connection.execute(versions)}


def audit(
    engine: Engine, tenant: str | None = None, *, run: str | None = None, since: float | None = None, limit: int = LIMIT_MAX
) -> list[AuditView]:
    """Return what was done to a tenant and its runs (None: to any), oldest first: the newest `limit` (1 to 10,000) of it.

    run: only what was done to this run. since: only from then on, epoch seconds.
    """
    statement = select(t.audit)
    if tenant is not None:
        statement = statement.where(t.audit.c.tenant == tenant)
    if run is not None:
        # Not LIKE, which SQLite's index does not know: a run's own, and those of its generations and nodes.
        of_run = t.audit.c.target.between(f"run:{run}", f"run:{run}\U0010ffff")
        statement = statement.where((t.audit.c.target == run) | of_run)
    if since is not None:
        statement = statement.where(t.audit.c.at >= int(since * 1000))
    newest = statement.order_by(t.audit.c.at.desc(), t.audit.c.id.desc()).limit(max(1, min(limit, LIMIT_MAX)))
    with open_record(engine) as connection:
        return [_audit_view(dict(row)) for row in connection.execute(newest).mappings()][::-1]


def pauses(engine: Engine) -> list[PauseView]:
    """Return what is paused, oldest first."""
    with open_record(engine) as connection:
        rows = connection.execute(select(t.pause).order_by(t.pause.c.at, t.pause.c.scope)).all()
    return [PauseView(row.scope, row.by, row.reason, row.at / 1000) for row in rows]


def recorded(engine: Engine) -> Position:
    """Return up to where the log is in SQL."""
    with open_record(engine) as connection:
        return read_cursor(connection)


def show_json(engine: Engine, run_id: str, generation: int | None = None) -> dict[str, Any]:
    """Return a run as `headgate show --json` prints it: times in epoch seconds, amounts in micros. Raises Unknown."""
    run = get_run(engine, run_id, generation)
    nodes = get_nodes(engine, run_id, run.generation)
    return {
        "run_id": run.run_id,
        "generation": run.generation,
        "tenant": run.tenant,
        "graph": run.graph,
        "key": run.key,
        "status": run.status,
        "outcome": run.outcome,
        "reason": run.reason,
        "submitted_at": run.submitted_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "budget": run.budget,
        "estimate": run.estimate,
        "floor": run.floor,
        "cost_micros": run.cost_micros,
        "cost": run_cost(engine, run_id, run.generation),
        "counts": dict(run.counts),
        "nodes": [_shown(node) for node in nodes],
    }


def _shown(node: NodeView) -> dict[str, Any]:
    names = ("id", "task", "required", "state", "outcome", "reason", "attempt", "fails", "lost", "worker", "verdict", "adopted")
    shown = {name: getattr(node, name) for name in (*names, "queued_at", "started_at", "finished_at", "cost_micros")}
    return {**shown, "cost": dict(node.cost), "error": node.error}


def _run_columns() -> list[Any]:
    # The spec may be megabytes, and lists show neither it nor what is adopted.
    return [column for column in t.run.c if column.name not in ("spec", "adopts", "becomes")]


def _run_row(connection: Connection, run_id: str, generation: int | None) -> Mapping[str, Any]:
    statement = select(*_run_columns()).where(t.run.c.run_id == run_id)
    if generation is not None:
        statement = statement.where(t.run.c.generation == generation)
    row = connection.execute(statement.order_by(t.run.c.generation.desc()).limit(1)).mappings().first()
    if row is None:
        raise Unknown(f"there is no run {run_id!r}" + (f" with generation {generation}" if generation is not None else ""))
    return dict(row)


def _spec_bytes(connection: Connection, run: Mapping[str, Any]) -> bytes | None:
    of_run = (t.run.c.run_id == run["run_id"]) & (t.run.c.generation == run["generation"])
    packed = connection.execute(select(t.run.c.spec).where(of_run)).scalar()
    return None if packed is None else zlib.decompress(packed)


def _spec(connection: Connection, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    text = _spec_bytes(connection, run)
    return [] if text is None else nodes_of(text)


def _grown(connection: Connection, run: Mapping[str, Any], spec: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what nodes of a run became, in their order, as a graph would have it."""
    found: dict[str, dict[str, Any]] = {}
    for event in expansions(connection, run["run_id"], run["generation"]):
        for node_id, required in became(event).items():
            owner = spec.get(event["node"]) or found.get(event["node"], {})
            tasks = dict(event.get("nodes") or {})
            task = tasks.get(node_id.removeprefix(f"{event['node']}.")) if tasks else owner.get("task")
            found[node_id] = {"id": node_id, "task": task, "required": required}
    return found


def _cost(connection: Connection, run: Mapping[str, Any]) -> dict[str, int]:
    of_run = (t.ledger.c.run_id == run["run_id"]) & (t.ledger.c.generation == run["generation"])
    charged = of_run & t.ledger.c.kind.in_(("settle", "waste")) & (t.ledger.c.category != "")
    sums = select(t.ledger.c.category, total(t.ledger.c.amount).label("amount")).where(charged).group_by(t.ledger.c.category)
    return {row.category: int(row.amount) for row in connection.execute(sums.order_by(t.ledger.c.category))}


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _run_view(row: Mapping[str, Any]) -> RunView:
    same = ("run_id", "generation", "tenant", "key", "digest", "status", "outcome", "total", "budget", "hold", "estimate", "floor")
    return RunView(
        **{name: row[name] for name in (*same, "cost_micros")},
        priority=row["ranked"] or row["priority"],
        graph=row["graph_name"],
        submitted_at=row["submitted_at"] / 1000,
        started_at=_seconds(row["started_at"]),
        finished_at=_seconds(row["finished_at"]),
        counts=json.loads(row["counts"] or "{}"),
        reason=row["reason"] or None,
        labels=json.loads(row["labels"] or "{}"),
    )


def _audit_view(row: Mapping[str, Any]) -> AuditView:
    data = json.loads(row["data"] or "{}")
    said = {name: data.get(name) for name in ("field", "old", "new", "version")}
    same = {name: row[name] for name in ("actor", "action", "tenant", "target")}
    other = {name: value for name, value in data.items() if name not in (*said, "reason")}
    return AuditView(at=row["at"] / 1000, **same, **said, reason=data.get("reason") or None, said=other)


def _node_view(node_id: str, row: Mapping[str, Any] | None, spec: Mapping[str, Any]) -> NodeView:
    task, required = spec.get("task"), bool(spec.get("required", True))
    if row is None:
        return NodeView(node_id, task, required, "pending")
    return NodeView(
        node_id,
        task,
        required,
        row["state"] or "pending",
        **{name: row[name] for name in ("outcome", "fails", "lost", "worker", "verdict", "cost_micros", "adopted")},
        reason=row["reason"] or None,
        attempt=row["attempt"] or 0,
        queued_at=_seconds(row["queued_at"]),
        started_at=_seconds(row["started_at"]),
        finished_at=_seconds(row["finished_at"]),
        cost={category: row[f"cost_{category}"] for category in CATEGORIES if row[f"cost_{category}"]},
        result=row["result"] or None,
        error=read_json(row["error"]),
    )


def read_json(text: str | None) -> Any:
    """Return what a column of JSON says: None where it is empty, the text itself where it is none."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
