"""Which tenants' limits are not enforced."""

from __future__ import annotations

import json

from sqlalchemy import Engine, func, or_, select

from . import tables as t
from .read import open_record


def not_enforced(engine: Engine) -> list[tuple[str, str]]:
    """Return each active tenant whose policy only observes, or is off, and which of both, by id. Raises Unavailable."""
    newest = select(t.policy.c.tenant, func.max(t.policy.c.version).label("version")).group_by(t.policy.c.tenant).subquery()
    # Policies are written by pydantic, in one form: thousands of others need not be read.
    said = [t.policy.c.fields.contains(f'"enforcement":"{how}"') for how in ("observe", "off")]
    wanted = (
        select(t.policy.c.tenant, t.policy.c.fields)
        .join(newest, (newest.c.tenant == t.policy.c.tenant) & (newest.c.version == t.policy.c.version))
        .join(t.tenant, t.tenant.c.id == t.policy.c.tenant)
        .where(or_(*said), t.tenant.c.status != "closed")
        .order_by(t.policy.c.tenant)
    )
    with open_record(engine) as connection:
        return [(row.tenant, str(json.loads(row.fields)["enforcement"])) for row in connection.execute(wanted)]
