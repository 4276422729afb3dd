"""A Celery app of ordinary tasks over the fair transport, without the platform: what the transport alone promises."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from kombu.entity import Queue

from tenancy.router import route
from tenancy.transport.channel import install

install()
app = Celery("fair_app", broker=os.environ["FAIR_TEST_BROKER"])
app.conf.update(
    task_queues=(Queue("pool.default"),),
    task_default_queue="system",
    task_routes=(route,),
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="fair.note")  # type: ignore[untyped-decorator] # Celery has no types
def note(path: str, word: str = "done") -> None:
    """Add a line to a file."""
    with Path(path).open("a") as file:
        file.write(f"{word}\n")
