"""What beat and the end of a run call: repair, admission, notices, schedules, audit, artifacts, reports, collection, logs of nodes."""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery, shared_task

from orchestrator.kernel import ADMIT, GOVERN
from orchestrator.pulse import Beat, PutOff
from tenancy.errors import HeadgateError

logger = logging.getLogger(__name__)


@shared_task(name="headgate.sweep", base=Beat, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def sweep(self: Any) -> str | None:
    """Repair what a crash left half done. Idempotent, so a tick too many is harmless."""
    app: Celery = self.app
    try:
        repairs = app.headgate_sweeper.sweep()
    except HeadgateError as error:
        return _put_off("sweep put off", error)
    return _done(f"swept: {repairs}" if any(vars(repairs).values()) else None)


@shared_task(name=ADMIT, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def admit(self: Any) -> None:
    """Let waiting runs in. Called when one of them may be able to start; the sweep calls it too, so a message may be lost."""
    app: Celery = self.app
    try:
        app.headgate_sweeper.admission.let_in()
    except HeadgateError as error:
        logger.warning("admission put off: %s", error)


@shared_task(name=GOVERN, base=Beat, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def govern(self: Any, run: str = "", trigger: str = "beat", cause: str = "", tenant: str = "") -> str | None:
    """Decide on every tenant's runs, or on those of one tenant, or of a run's; a decision that somebody left half applied is completed.

    However many do this at once, a run has one decision at a time. `run` is `{run}.{generation}`.
    """
    app: Celery = self.app
    try:
        governed = app.headgate_governor.tick(run, trigger, cause, tenant)
    except HeadgateError as error:
        return _put_off("the cost agent's pass was put off", error)
    return _done(f"governed: {governed}" if any(vars(governed).values()) else None)


@shared_task(name="headgate.notify", base=Beat, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def notify(self: Any) -> str | None:
    """Deliver the notifications that are due. What a pass leaves, or a lost message, the next one does."""
    app: Celery = self.app
    try:
        app.headgate_notifier.deliver()
    except HeadgateError as error:
        return _put_off("notifications put off", error)
    return None


@shared_task(name="headgate.collect", base=Beat, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def collect(self: Any) -> str | None:
    """Remove objects of results that nobody needs any more. What a pass leaves, the next one finds."""
    app: Celery = self.app
    try:
        removed = app.headgate_collector.collect(app.headgate_kernel.link.now_ms())
    except HeadgateError as error:
        return _put_off("collection of results put off", error)
    return _done(f"collected {removed} objects of results" if removed else None)


@shared_task(name="headgate.logs", base=Beat, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def logs(self: Any) -> str | None:
    """Put away the logs of nodes whose process was killed, or whose store did not answer. What a pass leaves, the next one finds."""
    app: Celery = self.app
    try:
        put = app.headgate_kernel.logs.put_away()
    except HeadgateError as error:
        return _put_off("logs of nodes were not put away", error)
    return _done(f"put away {put} logs of nodes" if put else None)


@shared_task(name="headgate.artifacts", base=Beat, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def artifacts(self: Any) -> str | None:
    """Write the files about runs that have ended. What cannot be written now is found by a later pass."""
    app: Celery = self.app
    try:
        written = app.headgate_exporter.tick()
    except (HeadgateError, OSError) as error:
        return _put_off("artifacts put off", error)
    return _done(f"wrote the artifacts of {written} runs" if written else None)


@shared_task(name="headgate.reports", base=Beat, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def reports(self: Any) -> str | None:
    """Make the reports that are due, and write their files. However many do this at once, each is kept and sent once."""
    app: Celery = self.app
    try:
        made = app.headgate_reporter.tick()
    except (HeadgateError, OSError) as error:
        return _put_off("reports put off", error)
    return _done(f"reports: {made}" if any(vars(made).values()) else None)


@shared_task(name="headgate.schedules", base=Beat, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def schedules(self: Any) -> str | None:
    """Decide which times of schedules are due, and submit their runs. However many do this at once, no time has two runs."""
    app: Celery = self.app
    try:
        passed = app.headgate_ticker.tick()
    except HeadgateError as error:
        return _put_off("schedules put off", error)
    return _done(f"schedules: {passed}" if any(vars(passed).values()) else None)


@shared_task(name="headgate.audit", base=Beat, bind=True, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
def audit(self: Any) -> str | None:
    """Compare some tenants' counters with the ledger. What differs is on record as an incident; nothing is mended."""
    app: Celery = self.app
    try:
        found = app.headgate_auditor.tick()
    except HeadgateError as error:
        return _put_off("audit put off", error)
    for difference in found:
        logger.error("%s is %s, the ledger says %s", difference.what, difference.counter, difference.ledger)
    return f"{len(found)} counters differ from the ledger" if found else None


def _done(said: str | None) -> str | None:
    if said is not None:
        logger.info("%s", said)
    return said


def _put_off(said: str, error: Exception) -> PutOff:
    logger.warning("%s: %s", said, error)
    return PutOff(f"{said}: {error}")
