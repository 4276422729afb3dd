"""The flusher: a thread that brings what attempts say to the spool, four times a second at most; it begins with the first line."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final, Protocol

from redis import RedisError

from tenancy.errors import HeadgateError

logger = logging.getLogger(__name__)

PERIOD_S: Final = 0.25
"""How long a line waits at most to be seen by others; what a killed process loses."""
AWAY_S: Final = 1.0
"""How long it waits before it tries again where Redis does not answer."""

THREAD: Final = "headgate-logs"


class Flushed(Protocol):
    """What has lines to be brought away."""

    def flush(self) -> None:
        """Bring them away. Raises Unavailable."""


class Flusher:
    """Flushes whoever woke it. One for each process; a fork has none of its parent's."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pid = 0
        self._waiting: dict[Flushed, None] = {}
        self._came = threading.Event()

    def wake(self, who: Flushed) -> None:
        """Have `who` flushed soon. Cheap where it waits already."""
        if who in self._waiting and self._pid == os.getpid():
            return
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._waiting, self._came = os.getpid(), {}, threading.Event()
                threading.Thread(target=self._run, args=(self._came,), name=THREAD, daemon=True).start()
            self._waiting[who] = None
        self._came.set()

    def _run(self, came: threading.Event) -> None:
        while True:
            came.wait()
            time.sleep(PERIOD_S)
            came.clear()
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            for who in waiting:
                try:
                    who.flush()
                except (HeadgateError, RedisError) as away:
                    logger.info("what nodes say is kept back: %s", away)
                    time.sleep(AWAY_S)
                    self.wake(who)
