"""Names of queues: `t.{tenant}.{level}` to publish to, `pool.{name}` to consume from."""

from __future__ import annotations

import re

from tenancy.priorities import Priority

POOL_PREFIX = "pool."
DEFAULT_POOL = "default"
SYSTEM_QUEUE = "system"
TENANT_PATTERN = r"[a-z0-9][a-z0-9-]{1,62}"
POOL_PATTERN = r"[a-z0-9][a-z0-9-]{0,62}"
"""Names of pools: they are parts of keys and of fields, where other characters separate."""
POOL_REMEDY = "use 1 to 63 lower-case letters, digits or '-', not starting with '-'"
"""What POOL_PATTERN takes, in words."""

_QUEUE = re.compile(rf"t\.({TENANT_PATTERN})\.({'|'.join(p.name.lower() for p in Priority)})")


def queue_name(tenant: str, priority: Priority) -> str:
    """Return the queue of a tenant's messages at a priority, such as `t.acme.high`."""
    return f"t.{tenant}.{priority.name.lower()}"


def parse_queue(name: str) -> tuple[str, int] | None:
    """Return (tenant, priority number) of a tenant's queue, or None if `name` is another kind of queue."""
    match = _QUEUE.fullmatch(name)
    return (match.group(1), int(Priority[match.group(2).upper()])) if match else None
