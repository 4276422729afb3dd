"""Ordinary Celery tasks of any app, on the budgets of Headgate's tenants."""

from __future__ import annotations

import math
from collections.abc import Mapping

from celery import Celery

from cost.install import install as give_budgets
from cost.task_ledger import TaskLedger
from orchestrator.settings import Settings


def task_ledger(settings: Settings | None, silent_s: float = 3600.0) -> TaskLedger:
    """Return the ledger of ordinary tasks on the Redis of `settings`, or of those in force at its first call."""
    return TaskLedger(
        lambda: (settings or Settings.load()).resolved_client_url(),
        silent_s=silent_s,
        lag_ms=lambda: math.ceil((settings or Settings.load()).recorder_lag_limit_s * 1000),
    )


def install(
    app: Celery,
    *,
    untagged: str | None = None,
    estimates: Mapping[str, int] | None = None,
    silent_s: float = 3600.0,
    settings: Settings | None = None,
) -> None:
    """Charge the tasks of `app` to tenants, each execution once, and refuse what their budgets do not cover.

    A message names who pays in its header: `task.apply_async(headers={"tenant": "acme"})`. One without that header runs as before, or pays
    as the tenant `untagged`. Refused messages end as REVOKED, with the reason as their result. `meter.charge` works inside the tasks.
    The app keeps its broker, its backend and its queues; Headgate's Redis is that of HEADGATE_REDIS_URL, or of the stack in
    HEADGATE_HOME, and is asked when the first message with a tenant is about to run: while it is away such messages wait in their worker.

    estimates: micros to reserve by task name; the header `estimate_micros` goes before it, and 1,000 are the default.
    silent_s: an execution on another transport than Headgate's counts as lost after so many seconds without a sign (its start, or a
    charge); give more than the longest task takes.
    Raises ValueError for an amount or a tenant's id that is none.
    """
    give_budgets(app, task_ledger(settings, silent_s), untagged=untagged, estimates=estimates)
