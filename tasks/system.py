"""What beat calls: repair."""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery, shared_task

from tenancy.errors import HeadgateError

logger = logging.getLogger(__name__)


@shared_task(name="headgate.sweep", bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def sweep(self: Any) -> None:
    """Repair what a crash left half done. Idempotent, so a tick too many is harmless."""
    app: Celery = self.app
    try:
        repairs = app.headgate_sweeper.sweep()
    except HeadgateError as error:
        logger.warning("sweep put off: %s", error)
        return
    if any(vars(repairs).values()):
        logger.info("swept: %s", repairs)
