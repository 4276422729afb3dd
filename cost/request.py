"""The Request of a worker whose tasks have budgets: what the budget does not cover is refused before it runs.

A signal cannot veto, and a task that is refused in a process has taken that process. So the money is reserved in the worker's main process,
when the task is about to be handed to the pool, in `Request.revoked()`, which Celery asks then.
"""

from __future__ import annotations

import logging
import re
import uuid
from functools import cache
from typing import Any, Final

from celery.signals import task_received
from celery.worker import state
from celery.worker.request import Request
from redis import RedisError

from tenancy.errors import HeadgateError
from tenancy.queues import TENANT_PATTERN

from .money import check_micros
from .task_ledger import Claim, Delivery, Refusal, Terms
from .task_meter import CLAIM_FIELD, claimed

DEFAULT_ESTIMATE: Final = 1_000
"""Micros reserved for a task of which nothing is declared."""

RETRY_S: Final = 1.0
"""How long a task waits in its worker before Redis is asked again."""

SYSTEM_TASKS: Final = ("headgate.", "celery.")

logger = logging.getLogger(__name__)
_consumers: list[Any] = []


class BudgetRequest(Request):
    """Celery's Request with a budget; also mixed in before a request class of the task's own."""

    headgate_claim: Claim | None = None
    _headgate_key = ""

    def revoked(self) -> bool:
        """Say whether the task must not run now: revoked, expired, refused by the budget, or waiting for Headgate's Redis."""
        if super().revoked():
            return True
        # Celery asks at receipt too, when the task expires; money is reserved when it is about to run.
        if self.headgate_claim is not None or self not in state.reserved_requests:
            return False
        # What an earlier execution was given must not pass for this one's: a retry carries its request's headers.
        self.request_dict.pop(CLAIM_FIELD, None)
        terms: Terms | None = getattr(self.app, "headgate_terms", None)
        tenant = tenant_of(self, terms.untagged) if terms else None
        if terms is None or tenant is None:
            return False
        try:
            return self._headgate_refused(terms, tenant)
        except (HeadgateError, RedisError) as away:
            self._headgate_wait(away)
            return True

    def _headgate_refused(self, terms: Terms, tenant: str) -> bool:
        header = header_of(self, "estimate_micros")
        try:
            amount = check_micros(terms.estimates.get(self.type, DEFAULT_ESTIMATE) if header is None else header, "estimate_micros")
        except ValueError as wrong:
            return self._headgate_reject(str(wrong))
        found: Claim | Refusal = Refusal("unknown", "", "")
        if re.fullmatch(TENANT_PATTERN, tenant):
            found = terms.ledger.begin(self.id, self.type, tenant, amount, self._headgate_delivery())
        if isinstance(found, Refusal):
            return self._headgate_reject(found.sentence(tenant, amount))
        self.headgate_claim = found
        self.request_dict[CLAIM_FIELD] = [found.name, found.attempt, found.tenant, found.amount]
        claimed[self.id] = self
        return False

    def _headgate_reject(self, reason: str) -> bool:
        logger.warning("%s[%s] refused: %s", self.name, self.id, reason)
        self._announce_revoked(reason, False, None, False)
        return True

    def _headgate_delivery(self) -> Delivery:
        self._headgate_key = self._headgate_key or uuid.uuid4().hex
        inc, tag, number = self.request_dict.get("headgate_delivery") or ("", "", "")
        held = str(number) if self.task.acks_late else ""  # an early acknowledgement: the queue does not hold what runs
        return Delivery(self._headgate_key, str(inc), str(tag), held, str(self.hostname or ""))

    def _headgate_wait(self, why: Exception) -> None:
        """Keep the message, neither run nor acknowledged, and ask again later; it goes back to the broker with its worker."""
        logger.warning("%s[%s] waits, its budget cannot be read: %s", self.name, self.id, why)
        if not _consumers:
            self.reject(requeue=True)
            return
        consumer = _consumers[-1]

        def again() -> None:
            # After a lost connection the message is the broker's again, and this request nobody's.
            if self in state.reserved_requests:
                consumer.on_task_request(self)

        consumer.timer.call_after(RETRY_S, again)


@cache
def budgeted(base: type[Request]) -> type[Request]:
    """Return the request class `base` with a budget."""
    if issubclass(base, BudgetRequest):
        return base
    if base is Request:
        return BudgetRequest
    return type(base.__name__, (BudgetRequest, base), {"__module__": base.__module__})


def header_of(request: Any, name: str) -> Any:
    """Return a header of the message, wherever the message's protocol has it; None when it has none."""
    found = request.request_dict.get(name)
    return (request.request_dict.get("headers") or {}).get(name) if found is None else found


def tenant_of(request: Any, untagged: str | None) -> str | None:
    """Return who pays for a message: its tenant, or `untagged`; None for graph nodes, which pay by their run, and for system tasks."""
    if header_of(request, "headgate") is not None or request.type.startswith(SYSTEM_TASKS):
        return None
    found = header_of(request, "tenant")
    return untagged if found is None else str(found)


def _on_received(sender: Any = None, **_: Any) -> None:
    if sender is not None and (not _consumers or _consumers[-1] is not sender):
        _consumers[:] = [sender]


task_received.connect(_on_received, weak=False, dispatch_uid="headgate-consumer")
