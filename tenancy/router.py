"""The router: a message goes to its tenant's queue, ordinary Celery tasks too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tenancy.priorities import Priority
from tenancy.queues import TENANT_PATTERN, queue_name

DEFAULT_TENANT = "default"
SYSTEM_TASKS = ("headgate.", "celery.")
"""Names that stay on ordinary queues."""

ANONYMOUS = "anonymous"
"""Type of exchange that makes Celery keep `exchange="", routing_key=...` as they are: for the type "direct" it replaces the
routing key by the name of a declared queue, which would make every process declare a queue for each tenant."""


def route(name: str, _args: object, _kwargs: object, options: Mapping[str, Any], **_: object) -> dict[str, Any] | None:
    """Return where Celery publishes a task: the queue `t.{tenant}.{level}` of its `tenant` header, through the anonymous exchange.

    No header is the tenant `default`; a header that is no tenant's id goes there too, so that a worker refuses it and it is not lost. The
    level is that of the message's priority. A message that names its queue or exchange is left alone, and so are system tasks. The
    signature is that of Celery's routers.
    """
    if name.startswith(SYSTEM_TASKS) or options.get("queue") or options.get("routing_key") or options.get("exchange"):
        return None
    tenant = str((options.get("headers") or {}).get("tenant") or DEFAULT_TENANT)
    if not re.fullmatch(TENANT_PATTERN, tenant):
        tenant = DEFAULT_TENANT
    return {"exchange": "", "exchange_type": ANONYMOUS, "routing_key": queue_name(tenant, Priority.parse(options.get("priority")))}
