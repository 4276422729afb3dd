"""Stock Celery with the tasks of the nights; as a program it publishes a chord or a flood and prints its ids as JSON.

Imports nothing of ours: Celery, Kombu's Redis transport and the chord are as they come. Late acknowledgement and rejection on a lost
worker are what its documentation advises for work that must not get lost; the visibility timeout is the default.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from celery import Celery, chord

app = Celery("stock", broker=os.environ["STOCK_REDIS_URL"], backend=os.environ["STOCK_REDIS_URL"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_track_started=True,  # so that it can be seen who runs what
    worker_prefetch_multiplier=1,  # as ours: a dead worker is to hold no more than it runs
    broker_connection_retry_on_startup=True,
)


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _join(_results: list[Any]) -> None:
    return None


def _single() -> float:
    return time.time()


member = app.task(name="stock.member")(_sleep)
join = app.task(name="stock.join")(_join)
single = app.task(name="stock.single")(_single)


def submit(members: int, seconds: float) -> dict[str, Any]:
    """Publish a chord of `members` that sleep; return the ids of members and join, and the visibility timeout in force (seconds)."""
    result = chord(member.si(seconds) for _ in range(members))(join.s())
    with app.connection_for_write() as connection:
        timeout_s = connection.default_channel.visibility_timeout
    return {"members": [each.id for each in result.parent.results], "join": result.id, "visibility_timeout_s": timeout_s}


def submit_flood(count: int, seconds: float) -> dict[str, Any]:
    """Publish `count` tasks that sleep, in one batch, and then one that returns when it began; all in the one default queue."""
    with app.producer_pool.acquire(block=True) as producer:
        with producer.batch():
            flood = [member.apply_async((seconds,), producer=producer).id for _ in range(count)]
        one = single.apply_async(producer=producer).id
    return {"flood": flood, "one": one, "queued_at": time.time()}


if __name__ == "__main__":
    publish = {"chord": submit, "flood": submit_flood}[sys.argv[1]]
    print(json.dumps(publish(int(sys.argv[2]), float(sys.argv[3]))))  # noqa: T201 - what the demo reads
