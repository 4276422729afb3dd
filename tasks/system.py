"""What beat and the end of a run call: repair, admission, notices, schedules, audit, artifacts, reports, collection, logs of nodes."""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery, shared_task

from orchestrator.kernel import ADMIT, GOVERN
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


@shared_task(name=ADMIT, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def admit(self: Any) -> None:
    """Let waiting runs in. Called when one of them may be able to start; the sweep calls it too, so a message may be lost."""
    app: Celery = self.app
    try:
        app.headgate_sweeper.admission.let_in()
    except HeadgateError as error:
        logger.warning("admission put off: %s", error)


@shared_task(name=GOVERN, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def govern(self: Any, run: str = "", trigger: str = "beat", cause: str = "", tenant: str = "") -> None:
    """Decide on every tenant's runs, or on those of one tenant, or of a run's; a decision that somebody left half applied is completed.

    However many do this at once, a run has one decision at a time. `run` is `{run}.{generation}`.
    """
    app: Celery = self.app
    try:
        governed = app.headgate_governor.tick(run, trigger, cause, tenant)
    except HeadgateError as error:
        logger.warning("the cost agent's pass was put off: %s", error)
        return
    if any(vars(governed).values()):
        logger.info("governed: %s", governed)


@shared_task(name="headgate.notify", bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def notify(self: Any) -> None:
    """Deliver the notifications that are due. What a pass leaves, or a lost message, the next one does."""
    app: Celery = self.app
    try:
        app.headgate_notifier.deliver()
    except HeadgateError as error:
        logger.warning("notifications put off: %s", error)


@shared_task(name="headgate.collect", bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def collect(self: Any) -> None:
    """Remove objects of results that nobody needs any more. What a pass leaves, the next one finds."""
    app: Celery = self.app
    try:
        removed = app.headgate_collector.collect(app.headgate_kernel.link.now_ms())
    except HeadgateError as error:
        logger.warning("collection of results put off: %s", error)
        return
    if removed:
        logger.info("collected %d objects of results", removed)


@shared_task(name="headgate.logs", bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def logs(self: Any) -> None:
    """Put away the logs of nodes whose process was killed, or whose store did not answer. What a pass leaves, the next one finds."""
    app: Celery = self.app
    try:
        put = app.headgate_kernel.logs.put_away()
    except HeadgateError as error:
        logger.warning("logs of nodes were not put away: %s", error)
        return
    if put:
        logger.info("put away %d logs of nodes", put)


@shared_task(name="headgate.artifacts", bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def artifacts(self: Any) -> None:
    """Write the files about runs that have ended. What cannot be written now is found by a later pass."""
    app: Celery = self.app
    try:
        written = app.headgate_exporter.tick()
    except (HeadgateError, OSError) as error:
        logger.warning("artifacts put off: %s", error)
        return
    if written:
        logger.info("wrote the artifacts of %d runs", written)


@shared_task(name="headgate.reports", bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def reports(self: Any) -> None:
    """Make the reports that are due, and write their files. However many do this at once, each is kept and sent once."""
    app: Celery = self.app
    try:
        made = app.headgate_reporter.tick()
    except (HeadgateError, OSError) as error:
        logger.warning("reports put off: %s", error)
        return
    if any(vars(made).values()):
        logger.info("reports: %s", made)


@shared_task(name="headgate.schedules", bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def schedules(self: Any) -> None:
    """Decide which times of schedules are due, and submit their runs. However many do this at once, no time has two runs."""
    app: Celery = self.app
    try:
        passed = app.headgate_ticker.tick()
    except HeadgateError as error:
        logger.warning("schedules put off: %s", error)
        return
    if any(vars(passed).values()):
        logger.info("schedules: %s", passed)


@shared_task(name="headgate.audit", bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def audit(self: Any) -> None:
    """Compare some tenants' counters with the ledger. What differs is on record as an incident; nothing is mended."""
    app: Celery = self.app
    try:
        found = app.headgate_auditor.tick()
    except HeadgateError as error:
        logger.warning("audit put off: %s", error)
        return
    for difference in found:
        logger.error("%s is %s, the ledger says %s", difference.what, difference.counter, difference.ledger)
