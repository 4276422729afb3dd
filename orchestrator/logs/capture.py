"""Capturing what an attempt says: kept in this process, shown to others while it runs, and put away when it ends.

A node that says nothing costs no command and no file. One that ends within a quarter of a second writes one object and no command. What a
killed process had said, but for the last quarter of a second, is in the spool; the system worker puts it away.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded
from redis import RedisError

from orchestrator.logs.flusher import Flusher
from orchestrator.logs.line import LogLine, LogName, decode, encode, last_bytes, merged
from orchestrator.logs.routing import Hearer, hearing
from orchestrator.logs.spool import IDLE_MS, Spool, end_of
from orchestrator.objects import Objects
from orchestrator.redaction import begins_a_key, ends_a_key, redacted_text
from tenancy.errors import HeadgateError

logger = logging.getLogger(__name__)

TEXT_CHARS_MAX: Final = 16_384
"""Of one line's text; the rest of it is left out."""
PARTIAL_CHARS_MAX: Final = 65_536
"""Of what was printed without a line break; then it counts as a line."""
PIECE_BYTES: Final = 16_384
"""Of one entry of the spool."""


class Capture(Hearer):
    """What one attempt has said: the last `bytes_max` bytes of it. Safe to be told by several threads."""

    def __init__(self, name: LogName, bytes_max: int, flusher: Flusher, spool: Spool) -> None:
        self.name = name
        self._bytes_max = bytes_max
        self._flusher = flusher
        self._spool = spool
        # Told again by a signal handler while it is being told: the same thread must be let in.
        self._lock = threading.RLock()
        self._sending = threading.Lock()
        self._lines: deque[tuple[int, bytes]] = deque()
        self._count = self._end = self._sent = 0
        self._begin = 0
        self._partial: dict[str, str] = {}
        self._in_key: dict[str, bool] = {}
        self._secrets: tuple[str, ...] = ()
        self._closed = False

    def hide(self, secrets: Iterable[str]) -> None:
        """Have these texts hidden from here on."""
        with self._lock:
            self._secrets = tuple(sorted({*self._secrets, *secrets}, key=len, reverse=True))

    def say(self, level: str, logger: str, text: str) -> None:
        """As Hearer.say."""
        with self._lock:
            if not self._closed:
                self._keep(level, logger, redacted_text(text, self._secrets))

    def write(self, stream: str, text: str) -> None:
        """As Hearer.write: what was printed becomes lines at line breaks."""
        with self._lock:
            if self._closed:
                return
            *lines, rest = (self._partial.get(stream, "") + text).split("\n")
            if len(rest) > PARTIAL_CHARS_MAX:
                lines, rest = [*lines, rest], ""
            self._partial[stream] = rest
            for line in lines:
                self._print(stream, line)

    def _print(self, stream: str, line: str) -> None:
        # A bar of progress is drawn anew behind each carriage return; the last one stands.
        line = line.removesuffix("\r").rpartition("\r")[2]
        if self._in_key.get(stream):
            self._in_key[stream] = not ends_a_key(line)
            return
        self._in_key[stream] = begins_a_key(line)
        self._keep(stream, "", redacted_text(line, self._secrets))

    def _keep(self, level: str, logger: str, text: str) -> None:
        if len(text) > TEXT_CHARS_MAX:
            text = f"{text[:TEXT_CHARS_MAX]}… {len(text) - TEXT_CHARS_MAX} more characters"
        self._count += 1
        line = encode(self._count, time.time_ns() // 1_000_000, level, logger, text)
        self._end += len(line)
        self._lines.append((self._end, line))
        while self._end - self._begin > self._bytes_max and len(self._lines) > 1:
            self._begin = self._lines.popleft()[0]
        self._flusher.wake(self)

    def flush(self) -> None:
        """Bring what is new to the spool; nothing where the attempt is over. Raises Unavailable, and Fenced between epochs."""
        with self._sending:
            if self._closed:
                return
            self._send()

    def _send(self) -> None:
        with self._lock:
            unsent = [each for each in self._lines if each[0] > self._sent]
        if unsent:
            self._spool.append(self.name, _pieces(unsent))
            self._sent = unsent[-1][0]

    def close(self, objects: Objects) -> None:
        """Hear nothing more, and put away what was said; raises nothing.

        Where the store of objects does not answer, the spool has the rest of it; where neither does, the rest is lost.
        """
        with self._lock:
            partial, self._partial = self._partial, {}
            for stream, rest in partial.items():
                if rest:
                    self._print(stream, rest)
            self._closed = True
        if not self._lines:
            return
        with self._sending:
            try:
                objects.write(self.name.object, b"".join(line for _, line in self._lines))
                if self._sent:
                    self._spool.drop(self.name, self._sent)
            except (HeadgateError, RedisError) as away:
                try:
                    self._send()
                except (HeadgateError, RedisError):
                    logger.warning("what %s said last is lost: %s", self.name.object, away)


def _pieces(lines: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Return lines as pieces of the spool: whole lines, each piece with its end."""
    pieces: list[tuple[int, bytes]] = []
    for end, line in lines:
        if pieces and len(pieces[-1][1]) + len(line) <= PIECE_BYTES:
            pieces[-1] = end, pieces[-1][1] + line
        else:
            pieces.append((end, line))
    return pieces


class Logs:
    """The logs of the attempts that run in this process, and those that others left behind.

    :param bytes_max: how much of each log is kept, bytes; 0: nothing is captured.
    """

    def __init__(self, spool: Spool, objects: Objects, bytes_max: int) -> None:
        self.spool = spool
        self.objects = objects
        self.bytes_max = bytes_max
        self._flusher = Flusher()

    @contextmanager
    def capturing(self, name: LogName) -> Iterator[Capture | None]:
        """Capture what is said inside the block, by `logging` and on stdout and stderr; after it, it is put away.

        Gives None where nothing is captured.
        """
        if not self.bytes_max:
            yield None
            return
        capture = Capture(name, self.bytes_max, self._flusher, self.spool)
        try:
            with hearing(capture):
                yield capture
        finally:
            try:
                capture.close(self.objects)
            except SoftTimeLimitExceeded:  # it was in time with its work, and the limit strikes once
                capture.close(self.objects)

    def put_away(self, idle_ms: int = IDLE_MS) -> int:
        """Put away the logs that killed processes left, or that could not be put away; return how many. Raises Unavailable.

        :param idle_ms: those of which nothing came for so long: another may be about to put them away.
        """
        put = 0
        for name in self.spool.idle(idle_ms):
            said, position = self.spool.read(name)
            self.objects.write(name.object, last_bytes(merged(self._kept(name), said), self.bytes_max or sys.maxsize))
            put += self.spool.drop(name, end_of(position))
        return put

    def _kept(self, name: LogName) -> list[LogLine]:
        try:
            return decode(name, self.objects.read(name.object))
        except KeyError:
            return []
