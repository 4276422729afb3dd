"""The worker's consumer: Celery's own, which finishes what runs before it lets go of the pool.

Stock Celery 5.7, told to end, discards each job whose process has not said yet that it began. The process runs it all the same, and then
waits for 30 s (`GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT` in billiard) for its parent to take note of an end that nobody reads any
more. So the event loop goes on here until every job that was handed to the pool is over, and only then Celery's warm shutdown begins, which finds nothing left to wait for. Nothing is popped meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.worker import state
from celery.worker.consumer import Consumer as Stock
from celery.worker.control import control_command

logger = logging.getLogger(__name__)

DRAIN = "headgate_drain"
"""The remote control command that winds a worker down."""

DRAINED = 86
"""Exit code of a worker that was drained: whoever watches it does not start it again."""


def drain(_state: Any, **_: Any) -> None:
    """Take nothing new, finish what runs, and end."""
    logger.warning("drained: taking nothing new")
    raise WorkerShutdown(DRAINED)


control_command(name=DRAIN)(drain)


class Consumer(Stock):
    """Celery's consumer with an end that loses nothing and waits for nothing but work."""

    loop: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stock_loop = self.loop
        self.loop = self._loop_to_the_end

    def _loop_to_the_end(self, *args: Any) -> None:
        try:
            self._stock_loop(*args)
        except WorkerShutdown as told:
            # Remembered, so that a connection lost meanwhile does not make the worker begin anew.
            state.should_stop = told.code
            self._wind_down()
            raise

    def _wind_down(self) -> None:
        if self.hub is None or self.task_consumer is None:
            return  # a green pool: Celery's own way
        self.task_consumer.channel.qos.can_consume = _never
        if self.controller.semaphore is not None:
            self.controller.semaphore.clear()  # what was popped and not handed to the pool goes back in line
        loop = self.hub.create_loop()
        while self.connection and running():
            if state.should_terminate is not None and state.should_terminate is not False:
                raise WorkerTerminate(state.should_terminate)
            with contextlib.suppress(StopIteration):
                next(loop)
                continue
            loop = self.hub.create_loop()


def running() -> list[Any]:
    """Return the requests that this worker's pool has and that are not over."""
    return [request for request in tuple(state.reserved_requests) if request._apply_result is not None]


def _never() -> bool:
    return False
