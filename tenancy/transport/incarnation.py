"""An incarnation: one start of a worker, alive while its heartbeat is."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from typing import Any

from redis.exceptions import RedisError

from tenancy.errors import HeadgateError
from tenancy.transport.queue import Queue

logger = logging.getLogger(__name__)

TTL_S = 4.0
"""Without a heartbeat for this long an incarnation is dead."""


class Incarnation:
    """Keeps a worker's liveness record fresh from a thread, and gives back what dead ones hold.

    Each incarnation reclaims for all, so that nothing but one live worker is needed to recover from the death of another.

    :param info: name, host, pid, pools and tasks, for operators and for submissions that ask who serves a task.
    """

    def __init__(self, queue: Queue, info: Mapping[str, Any], *, ttl_s: float = TTL_S) -> None:
        self.id = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
        self.queue = queue
        self.info = dict(info)
        self.ttl_ms = int(ttl_s * 1000)
        self.alive = False
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="headgate-liveness", daemon=True)

    def start(self) -> None:
        """Enroll and start the heartbeat. Raises Unavailable or Fenced."""
        self.queue.enroll(self.id, self.ttl_ms, self.info)
        self.alive = True
        self._thread.start()

    def retire(self) -> None:
        """Stop the heartbeat and give back what is held; in a forked child nothing happens."""
        if os.getpid() != self._pid or self._stop.is_set():
            return
        self.alive = False
        self._stop.set()
        try:
            self.queue.retire(self.id)
        except (HeadgateError, RedisError):
            logger.info("incarnation %s could not say goodbye; it is dead after %d ms of silence", self.id, self.ttl_ms)

    def _keep_alive(self) -> None:
        # A heartbeat each quarter of the time to live, and twice as often a look for others that are silent: what a killed worker held
        # is back after at most 9/8 of it.
        turn = 0
        while not self._stop.wait(self.ttl_ms / 8000):
            turn += 1
            try:
                if turn % 2 == 0 and not self.queue.beat(self.id):
                    self.alive = False
                    return
                self.queue.reclaim(self.ttl_ms)
            except (HeadgateError, RedisError) as error:
                logger.debug("heartbeat of %s failed: %s", self.id, error)
