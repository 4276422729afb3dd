"""Requests about tenants: a new one, another policy, another status; each change with its trail.

A tenant that does not exist and an id that nobody could have are answered the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from orchestrator.store import tables as t
from orchestrator.store.writer import keep
from tenancy.policy import Policy
from tenancy.queues import TENANT_PATTERN
from tenancy.router import DEFAULT_TENANT

from .trail import leave_trail

STATUSES = {"active": "tenant.resumed", "suspended": "tenant.suspended", "closed": "tenant.closed"}
"""What a tenant's status can become, and what the audit calls it."""

Request = dict[str, Any]
Answer = dict[str, Any]


def decide_tenant(connection: Connection, event: Request) -> Answer:
    """Return the answer to a request about a tenant, storing what it asks for. Raises KeyError for another request.

    `status` is accepted (with `changed`: field -> [old, new], where there was something before), same (nothing differs), duplicate,
    unknown_tenant, conflict (the policy has another version by now), closed (which is final) or invalid, with `reason`. A status'
    answer says how many runs are `live`.
    """
    decide = _REQUESTS[str(event["t"])]
    try:
        return decide(connection, event)
    except (ValueError, TypeError) as error:
        return _invalid(str(event.get("tenant") or ""), str(error))


def _create(connection: Connection, event: Request) -> Answer:
    tenant, like = str(event.get("tenant") or ""), str(event.get("like") or "")
    if not re.fullmatch(TENANT_PATTERN, tenant):
        return _invalid(tenant, "a tenant's id is 2 to 63 of a-z, 0-9 and -, not beginning with -")
    if connection.execute(select(t.tenant.c.id).where(t.tenant.c.id == tenant)).first() is not None:
        return {"status": "duplicate", "tenant": tenant}
    base = _forked(connection, like) if like else Policy()
    if base is None:
        return {"status": "unknown_tenant", "tenant": tenant, "like": like}
    policy = base.evolve(_fields(event.get("policy")))
    said = {"reason": str(event.get("reason") or ""), "like": like}
    actor = str(event.get("by") or tenant)
    create_tenant(connection, tenant, str(event.get("name") or tenant), policy, int(event["at"]), actor=actor, **said)
    return {"status": "accepted", "tenant": tenant}


def _change_policy(connection: Connection, event: Request) -> Answer:
    tenant = str(event.get("tenant") or "")
    held = _current(connection, tenant)
    if held is None:
        return {"status": "unknown_tenant", "tenant": tenant}
    version, old = held
    expected = event.get("version")
    if expected is not None and int(expected) != version:
        return {"status": "conflict", "tenant": tenant, "version": version}
    new = old.evolve(_fields(event.get("changes")))
    changed = old.differs(new)
    if not changed:
        return {"status": "same", "tenant": tenant, "version": version}
    row = {"tenant": tenant, "version": version + 1, "fields": new.model_dump_json(), "at": int(event["at"])}
    connection.execute(insert(t.policy), row)
    for name, (before, after) in changed.items():
        _note(connection, event, "policy.changed", name, before, after, {"version": version + 1})
    return {"status": "accepted", "tenant": tenant, "version": version + 1, "changed": {name: list(pair) for name, pair in changed.items()}}


def _change_status(connection: Connection, event: Request) -> Answer:
    tenant, wanted = str(event.get("tenant") or ""), str(event.get("status") or "")
    standing = connection.execute(select(t.tenant.c.status).where(t.tenant.c.id == tenant)).scalar()
    if standing is None:
        return {"status": "unknown_tenant", "tenant": tenant}
    if wanted not in STATUSES:
        return _invalid(tenant, f"a tenant is {', '.join(STATUSES)}, never {wanted!r}")
    live = _live_runs(connection, tenant)
    if wanted == standing:
        return {"status": "same", "tenant": tenant, "live": live}
    if standing == "closed":
        return {"status": "closed", "tenant": tenant, "live": live}
    if wanted == "closed" and tenant == DEFAULT_TENANT:
        return _invalid(tenant, f"the tenant {DEFAULT_TENANT!r} cannot be closed")
    connection.execute(update(t.tenant).where(t.tenant.c.id == tenant).values(status=wanted))
    _note(connection, event, STATUSES[wanted], "status", standing, wanted, {})
    return {"status": "accepted", "tenant": tenant, "changed": {"status": [standing, wanted]}, "live": live}


_REQUESTS: Mapping[str, Callable[[Connection, Request], Answer]] = {
    "request.tenant": _create,
    "request.policy": _change_policy,
    "request.status": _change_status,
}


def _invalid(tenant: str, reason: str) -> Answer:
    return {"status": "invalid", "tenant": tenant, "reason": reason}


def _fields(text: Any) -> dict[str, Any]:
    """Return the fields of a policy that a request names, as text: an amount of 16 digits would not survive Lua's JSON."""
    fields = json.loads(str(text or "{}"))
    if not isinstance(fields, dict):
        raise ValueError("the fields of a policy are an object")
    return fields


def _current(connection: Connection, tenant: str) -> tuple[int, Policy] | None:
    versions = select(t.policy.c.version, t.policy.c.fields).where(t.policy.c.tenant == tenant)
    row = connection.execute(versions.order_by(t.policy.c.version.desc()).limit(1)).first()
    return None if row is None else (row.version, Policy.model_validate_json(row.fields))


def _forked(connection: Connection, source: str) -> Policy | None:
    """Return the policy of a tenant that lets others have it, but for that permission and its webhook, which are its own.

    None elsewhere.
    """
    held = _current(connection, source)
    if held is None or not held[1].can_fork:
        return None
    return held[1].model_copy(update={"can_fork": False, "webhook": None})


def _live_runs(connection: Connection, tenant: str) -> int:
    of_tenant = (t.run.c.tenant == tenant) & t.run.c.status.in_(t.LIVE)
    return int(connection.execute(select(func.count()).select_from(t.run).where(of_tenant)).scalar() or 0)


def _note(connection: Connection, event: Request, action: str, field: str, old: Any, new: Any, more: Mapping[str, Any]) -> None:
    data, tenant = {"field": field, "old": old, "new": new, **more}, event["tenant"]
    leave_trail(connection, event, f"{event['request']}.{field}", action, tenant, data, tenant=tenant)


def create_tenant(
    connection: Connection, tenant: str, name: str, policy: Policy, at: int, *, actor: str, reason: str = "", like: str = ""
) -> None:
    """Store a tenant with the first version of its policy; one that exists stays as it is."""
    keep(connection, t.tenant, [{"id": tenant, "name": name, "status": "active", "currency": "EUR", "created_at": at}])
    keep(connection, t.policy, [{"tenant": tenant, "version": 1, "fields": policy.model_dump_json(), "at": at}])
    row = {"id": f"tenant.{tenant}", "at": at, "actor": actor, "action": "tenant.created", "tenant": tenant, "target": tenant}
    data = {"new": policy.model_dump(), "reason": reason, "version": 1, **({"like": like} if like else {})}
    keep(connection, t.audit, [{**row, "data": json.dumps(data)}])


def policy_fields(connection: Connection, tenants: Collection[str] | None = None) -> dict[str, dict[str, str]]:
    """Return the fields of the Redis hashes of `tenants` (None: of all) that are theirs by policy; counters are not among them."""
    newest = select(t.policy.c.tenant, func.max(t.policy.c.version).label("version")).group_by(t.policy.c.tenant)
    if tenants is not None:
        newest = newest.where(t.policy.c.tenant.in_(tenants))
    held = newest.subquery()
    rows = (
        select(t.policy.c.tenant, t.policy.c.version, t.policy.c.fields, t.tenant.c.status, t.tenant.c.currency)
        .join(held, (held.c.tenant == t.policy.c.tenant) & (held.c.version == t.policy.c.version))
        .join(t.tenant, t.tenant.c.id == t.policy.c.tenant)
    )
    return {row.tenant: _hash(row) for row in connection.execute(rows)}


def _hash(row: Any) -> dict[str, str]:
    policy = Policy.model_validate_json(row.fields)
    fields = {
        "limit_day": policy.limit_per_day_micros,
        "limit_month": policy.limit_per_month_micros,
        "max_runs": policy.max_concurrent_runs,
        "max_waiting_runs": policy.max_waiting_runs,
        "submissions_per_minute": policy.submissions_per_minute,
        "max_running_nodes": policy.max_running_nodes,
        "weight": policy.weight,
        "pool": policy.pool,
        "default_priority": policy.default_priority,
        "on_runs_limit": policy.on_runs_limit,
        "on_budget_limit": policy.on_budget_limit,
        "admit": policy.admit,
        "enforcement": policy.enforcement,
        "strict": int(policy.strict),
        "warn": policy.warn_percent,
        "critical": policy.critical_percent,
        "exceeded": policy.exceeded_percent,
        "on_warning": policy.on_warning,
        "on_critical": policy.on_critical,
        "on_exceeded": policy.on_exceeded,
        "degrade_budget": policy.degrade_budget_percent,
        "degrade_concurrency": policy.degrade_concurrency_percent,
        "on_floor": policy.on_floor,
        "currency": row.currency,
        "status": row.status,
        "version": row.version,
    }
    return {name: "" if value is None else str(value) for name, value in fields.items()}
