"""Stock Celery: one queue, or one for each tenant. Imports nothing of ours.

`celery -A benchmarks.transport.stock worker` works on the messages that `python -m benchmarks.transport.stock COUNT TENANTS` published.
PEER_REDIS is the Redis, PEER_DONE the file that gets a byte for each task, PEER_QUEUES the number of tenants with a queue of their own
(0: one queue for all), PEER_ACK=off switches off the emulation of acknowledgements, with which a message survives its worker.
"""

from __future__ import annotations

import os
import sys

from celery import Celery
from kombu import Exchange, Queue

QUEUES = int(os.environ.get("PEER_QUEUES", "0"))

app = Celery("peer", broker=os.environ["PEER_REDIS"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"ack_emulation": False} if os.environ.get("PEER_ACK") == "off" else {},
)
if QUEUES:
    app.conf.task_queues = [Queue(f"t{at}", Exchange(f"t{at}"), f"t{at}") for at in range(QUEUES)]

_done = os.open(os.environ["PEER_DONE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.task(name="peer.noop")
def noop() -> None:
    """Do nothing but be counted."""
    os.write(_done, b".")


def publish(count: int, tenants: int) -> None:
    """Publish `count` messages, those of the tenants in turn."""
    with app.producer_or_acquire() as producer, producer.batch(500):
        for at in range(count):
            tenant = f"t{at % tenants}"
            noop.apply_async(headers={"tenant": tenant}, producer=producer, queue=tenant if QUEUES else None)


if __name__ == "__main__":
    publish(int(sys.argv[1]), int(sys.argv[2]))
