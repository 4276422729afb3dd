"""The router: a message goes to its tenant's queue, ordinary Celery tasks too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenancy.priorities import Priority
from tenancy.queues import queue_name

DEFAULT_TENANT = "default"
SYSTEM_TASKS = ("headgate.", "celery.")
"""Names that stay on ordinary queues."""


def route(
    name: str, args: object = (), kwargs: object = None, options: Mapping[str, Any] | None = None, task: object = None, **_: object
) -> dict[str, Any] | None:
    """Return where Celery publishes a task: the queue `t.{tenant}.{level}` of the `tenant` header, through the anonymous exchange.

    No header is the tenant `default`; the level is that of the message's priority. A message that names its queue or exchange is left alone.
    """
    given = options or {}
    if name.startswith(SYSTEM_TASKS) or given.get("queue") or given.get("routing_key") or given.get("exchange"):
        return None
    tenant = (given.get("headers") or {}).get("tenant") or DEFAULT_TENANT
    return {"exchange": "", "routing_key": queue_name(str(tenant), Priority.parse(given.get("priority")))}
