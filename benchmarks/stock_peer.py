"""Stock Celery, doing the same work: an app that knows nothing of Headgate, and the process that publishes to it.

`celery -A benchmarks.stock_peer worker` runs it, `python -m benchmarks.stock_peer` answers each workload named on stdin with one
line of JSON. The Redis is that of PEER_REDIS (a redis+socket:// URL).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery, chain, chord, group

POLL_S = 0.005

app = Celery("peer", broker=os.environ["PEER_REDIS"], backend=os.environ["PEER_REDIS"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    task_serializer="json",
    accept_content=["json"],
)


@app.task(name="peer.noop")
def noop(inputs: Any = None) -> None:
    """Do nothing."""


def publish(shape: str, nodes: int) -> tuple[float, float, Callable[[redis.Redis], bool]]:
    """Publish a workload; return when its publishing began, in time and in CPU time, and how to see in Redis that it is over."""
    if shape == "group":
        work = group(noop.s() for _ in range(nodes))
        started, cpu = time.time(), time.process_time()
        work.apply_async()
        return started, cpu, _nothing_is_left
    many = (noop.s() for _ in range(nodes if shape == "chain" else nodes - 1))
    work = chain(*many) if shape == "chain" else chord(many, noop.s())
    started, cpu = time.time(), time.process_time()
    last = f"celery-task-meta-{work.apply_async().id}"
    return started, cpu, lambda client: bool(client.exists(last))


def _nothing_is_left(client: redis.Redis) -> bool:
    """Every message was taken and acknowledged; acks are late, so every task has ended."""
    with client.pipeline(transaction=False) as pipe:
        waiting, held = pipe.llen("celery").hlen("unacked").execute()
    return not waiting and not held


def main() -> None:
    client = redis.Redis(unix_socket_path=os.environ["PEER_REDIS"].removeprefix("redis+socket://").split("?")[0])
    for line in sys.stdin:
        wanted = json.loads(line)
        started, cpu, over = publish(wanted["shape"], wanted["nodes"])
        submitted, polls = time.time(), 1
        while not over(client):
            time.sleep(POLL_S)
            polls += 1
        ended = time.time()
        # Looking is ours, not stock Celery's: the harness takes it off again.
        told = {"submitted_s": submitted - started, "ended_s": ended - started, "done_s": ended - started}
        print(
            json.dumps({**told, "cpu_s": time.process_time() - cpu, "polls": polls, "looks": polls * (1 + (wanted["shape"] == "group"))}),
            flush=True,
        )


if __name__ == "__main__":
    # Tasks are published by their name; a second import under the module's own name would make a second app.
    main()
