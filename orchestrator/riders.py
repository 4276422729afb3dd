"""Settlements that ride with the next command of their process instead of making a round trip of their own."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from celery.signals import worker_process_shutdown, worker_shutdown
from redis import RedisError

from cost.middleware import Spent
from tenancy.errors import HeadgateError

logger = logging.getLogger(__name__)

RIDE_S = 0.02
"""How long a settlement waits for a command to ride with."""


class Riders:
    """Settlements of this process that Redis has not been told of yet.

    `settle` is called for each that found nothing to ride with. Whoever takes riders sees to it that they are settled; what a killed
    process took with it the sweeper settles, because `finish` has written down what was used. Threads may share one.
    """

    def __init__(self, settle: Callable[[Spent], None]) -> None:
        self._settle = settle
        self._lock = threading.Lock()
        self._waiting: list[Spent] = []
        self._came = threading.Event()
        self._pid = 0
        worker_process_shutdown.connect(self._on_shutdown, weak=False)
        worker_shutdown.connect(self._on_shutdown, weak=False)

    def add(self, spent: Spent) -> None:
        """Let a settlement wait for the next command, at most `RIDE_S` seconds."""
        with self._lock:
            if self._pid != os.getpid():  # a fork has the list of its parent, and not the thread
                self._pid, self._waiting, self._came = os.getpid(), [], threading.Event()
                threading.Thread(target=self._wait, args=(self._came,), name="headgate-riders", daemon=True).start()
            self._waiting.append(spent)
        self._came.set()

    def take(self) -> Sequence[Spent]:
        """Return those that wait; they ride with the caller."""
        if not self._waiting or self._pid != os.getpid():
            return ()
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken

    def flush(self) -> None:
        """Settle those that wait, each by itself."""
        for spent in self.take():
            try:
                self._settle(spent)
            except (HeadgateError, RedisError) as error:
                logger.warning("settlement of %s.%s is left to the sweeper: %s", spent.run_id, spent.node_id, error, extra=_subject(spent))
            except ValueError:
                logger.exception("a settlement was refused", extra=_subject(spent))

    def _wait(self, came: threading.Event) -> None:
        while True:
            came.wait()
            came.clear()
            time.sleep(RIDE_S)
            self.flush()

    def _on_shutdown(self, **_: object) -> None:
        self.flush()


def _subject(spent: Spent) -> dict[str, object]:
    return {"run": spent.run_id, "generation": spent.generation, "node": spent.node_id, "attempt": spent.attempt}
