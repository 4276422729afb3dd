"""A Celery app with nothing of ours but the transport. BARE_BROKER is its Redis, BARE_OPTIONS its transport options as JSON, POOL_NOTES the
file that its tasks write down their executions in."""

from __future__ import annotations

import json
import os

import pool_tasks
from celery import Celery
from kombu import Queue

from tenancy.router import route
from tenancy.transport import channel

channel.install()
app = Celery("bare", broker=os.environ["BARE_BROKER"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options=json.loads(os.environ.get("BARE_OPTIONS", "{}")),
    task_queues=(Queue("pool.default"),),
    task_default_queue="pool.default",
    task_default_priority=5,
    task_routes=(route,),
)
app.task(name="pools.note")(pool_tasks.note.run)
