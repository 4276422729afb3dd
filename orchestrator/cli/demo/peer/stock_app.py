"""Stock Celery with the tasks of the join night; as a program it submits the chord and prints its ids as JSON.

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


member = app.task(name="stock.member")(_sleep)
join = app.task(name="stock.join")(_join)


def submit(members: int, seconds: float) -> dict[str, Any]:
    """Publish a chord of `members` that sleep; return the ids of members and join, and the visibility timeout in force (seconds)."""
    result = chord(member.si(seconds) for _ in range(members))(join.s())
    with app.connection_for_write() as connection:
        timeout_s = connection.default_channel.visibility_timeout
    return {"members": [each.id for each in result.parent.results], "join": result.id, "visibility_timeout_s": timeout_s}


if __name__ == "__main__":
    print(json.dumps(submit(int(sys.argv[1]), float(sys.argv[2]))))  # noqa: T201 - what the demo reads
