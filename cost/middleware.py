"""Signal middleware: Celery's own signals settle what an execution used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import signals

from tenancy.errors import HeadgateError

logger = logging.getLogger(__name__)

_UID = "headgate-settle"


@dataclass(frozen=True, slots=True)
class Spent:
    """What one execution used, by category in micros; the key of its settlement."""

    run_id: str
    generation: int
    node_id: str
    attempt: int
    cats: str
    """`llm=30000,compute=12`, sorted; '' when nothing was used."""


def write_cats(micros: dict[str, int]) -> str:
    """Return amounts by category as the scripts read them: sorted, without zeroes."""
    return ",".join(f"{category}={amount}" for category, amount in sorted(micros.items()) if amount)


def connect(settle: Callable[[Spent], None]) -> None:
    """Settle each execution when Celery says that its task succeeded, failed or will be retried.

    The gate leaves a `Spent` on the request as `headgate_spent`. A signal that never comes, or a settlement that fails, is made up
    for by the sweeper: the settlement is keyed by the execution and counts once.
    """

    def on_end(sender: Any = None, **_: Any) -> None:
        spent = getattr(getattr(sender, "request", None), "headgate_spent", None)
        if spent is None:
            return
        sender.request.headgate_spent = None
        try:
            settle(spent)
        except HeadgateError as error:
            logger.warning("settlement of %s.%s attempt %s is left to the sweeper: %s", spent.run_id, spent.node_id, spent.attempt, error)

    for name in ("task_success", "task_failure", "task_retry"):
        getattr(signals, name).connect(on_end, weak=False, dispatch_uid=f"{_UID}-{name}")


def disconnect() -> None:
    """Undo `connect`; from then on only the sweeper settles."""
    for name in ("task_success", "task_failure", "task_retry"):
        getattr(signals, name).disconnect(dispatch_uid=f"{_UID}-{name}")
