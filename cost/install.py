"""Budgets for an existing Celery app."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from celery import Celery, signals
from celery.utils.imports import symbol_by_name

from tenancy.queues import TENANT_PATTERN

from .middleware import connect_tasks
from .money import check_micros
from .task_ledger import TaskLedger, Terms

_STOCK: Final = "celery.worker.request:Request"
_OURS: Final = "cost.request:BudgetRequest"


def install(app: Celery, ledger: TaskLedger, *, untagged: str | None = None, estimates: Mapping[str, int] | None = None) -> None:
    """Give the tasks of `app` budgets: what a tenant's budget does not cover is revoked before it runs, the rest is charged once.

    A message pays by its header `tenant`; one without is left alone, or pays as the tenant `untagged`. Reserved are
    the micros of the header `estimate_micros`, else those of `estimates` by the task's name, else 1,000. Broker, backend, queues and
    routes stay the app's own. May be called again, with other terms. Raises ValueError for an amount or a tenant that is none.
    """
    if untagged is not None and not re.fullmatch(TENANT_PATTERN, untagged):
        raise ValueError(f"untagged={untagged!r} is not the id of a tenant")
    amounts = {name: check_micros(micros, f"estimates[{name!r}]") for name, micros in (estimates or {}).items()}
    app.headgate_terms = Terms(ledger, untagged, amounts)
    app.Task.Request = _budgeted(app.Task.Request)
    connect_tasks()

    def cover(instance: Any = None, **_: Any) -> None:
        """Reach the tasks whose base class is not the app's, before the worker makes their strategies."""
        if instance.app is app:
            for task in app.tasks.values():
                if task.Request is not app.Task.Request:
                    task.Request = _budgeted(task.Request)

    signals.celeryd_after_setup.connect(cover, weak=False, dispatch_uid=f"headgate-install-{id(app)}")


def _budgeted(request: Any) -> Any:
    """Return a request class, or its name, with a budget. The stock one stays a name: producers never import what a worker is made of."""
    if request in (_STOCK, _OURS):
        return _OURS
    from .request import budgeted

    return budgeted(symbol_by_name(request))
