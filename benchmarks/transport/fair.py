"""The same app on the fair transport: ordinary Celery tasks, routed by their tenant.

`celery -A benchmarks.transport.fair worker` and `python -m benchmarks.transport.fair COUNT TENANTS`; the environment is that of stock.py.
"""

from __future__ import annotations

import os
import sys

from celery import Celery
from kombu import Queue

from tenancy.queues import DEFAULT_POOL, POOL_PREFIX
from tenancy.router import route
from tenancy.transport import channel

channel.install()
app = Celery("peer", broker=os.environ["PEER_REDIS"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    task_queues=(Queue(POOL_PREFIX + DEFAULT_POOL),),
    task_default_queue=POOL_PREFIX + DEFAULT_POOL,
    task_default_priority=5,
    task_routes=(route,),
)

_done = os.open(os.environ["PEER_DONE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.task(name="peer.noop")
def noop() -> None:
    """Do nothing but be counted."""
    os.write(_done, b".")


def publish(count: int, tenants: int) -> None:
    """Publish `count` messages, those of the tenants in turn."""
    with app.producer_or_acquire() as producer, producer.batch(500):
        for at in range(count):
            noop.apply_async(headers={"tenant": f"t{at % tenants}"}, producer=producer)


if __name__ == "__main__":
    publish(int(sys.argv[1]), int(sys.argv[2]))
