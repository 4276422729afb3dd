"""The task as the product's own worker (`celery -A orchestrator.app`) serves it, and its publisher: `python -m benchmarks.transport.product
COUNT TENANTS`. A no-op of a project's module, published as an ordinary task."""

from __future__ import annotations

import os
import sys

from orchestrator.building import task

_done = os.open(os.environ["PEER_DONE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@task(name="peer.noop", estimate={"compute": 1})
def noop() -> None:
    """Do nothing but be counted."""
    os.write(_done, b".")


def publish(count: int, tenants: int) -> None:
    """Publish `count` messages, those of the tenants in turn."""
    from orchestrator.app import app

    with app.producer_or_acquire() as producer, producer.batch(500):
        for at in range(count):
            app.send_task("peer.noop", headers={"tenant": f"t{at % tenants}"}, producer=producer, ignore_result=True)


if __name__ == "__main__":
    publish(int(sys.argv[1]), int(sys.argv[2]))
