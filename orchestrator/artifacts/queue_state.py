"""The snapshot of the queues: `execution/queue_state.json`."""

from __future__ import annotations

from typing import Any

from tenancy.transport.view import View

SCHEMA_VERSION = 1


def queue_state(view: View) -> dict[str, Any]:
    """Return what waits and runs of each tenant, as the live view has it."""
    pending: dict[str, dict[str, int]] = {}
    for each in view.tenants:
        for line in each.lines:
            of_tenant = pending.setdefault(each.tenant, {})
            for priority, count in line.queued.items():
                of_tenant[priority] = of_tenant.get(priority, 0) + count
    return {
        "schema_version": SCHEMA_VERSION,
        "pending": {tenant: counts for tenant, counts in pending.items() if counts},
        "parked": {each.tenant: each.parked for each in view.tenants if each.parked},
        "in_progress": {each.tenant: each.running for each in view.tenants if each.running},
        "last_updated": view.at,
    }
