"""The spool's scripts on plain dictionaries: what they are held against, and a spool for tests without Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.logs.line import LogLine, LogName, decode
from orchestrator.logs.spool import IDLE_MS, KEPT_MS, end_of


class MemorySpool:
    """As Spool; `now_ms` is the time, `runs` says whether an attempt runs."""

    def __init__(self, bytes_max: int, now_ms: Callable[[], int], runs: Callable[[LogName], bool]) -> None:
        self.bytes_max = bytes_max
        self._now_ms = now_ms
        self._runs = runs
        self._logs: dict[LogName, list[tuple[int, bytes]]] = {}
        self._signs: dict[LogName, int] = {}
        self._expires: dict[LogName, int] = {}

    def append(self, name: LogName, pieces: Sequence[tuple[int, bytes]]) -> int:
        """As Spool.append."""
        self._expire()
        log = self._logs.get(name, [])
        for end, lines in pieces:
            if end > (log[-1][0] if log else 0):
                log.append((end, lines))
        if not log:
            return 0
        self._logs[name] = [piece for piece in log if piece[0] > log[-1][0] - self.bytes_max]
        self._signs[name], self._expires[name] = self._now_ms(), self._now_ms() + KEPT_MS
        return log[-1][0]

    def idle(self, idle_ms: int = IDLE_MS, most: int = 100) -> list[LogName]:
        """As Spool.idle."""
        self._expire()
        found = []
        before = self._now_ms() - idle_ms
        for name in sorted((each for each in self._signs if self._signs[each] <= before), key=self._turn)[:most]:
            if name not in self._logs:
                del self._signs[name]
                continue
            self._signs[name] = self._now_ms()
            if self._runs(name):
                self._expires[name] = self._now_ms() + KEPT_MS
            else:
                found.append(name)
        return found

    def drop(self, name: LogName, end: int) -> bool:
        """As Spool.drop."""
        self._expire()
        if name in self._logs and self._logs[name][-1][0] > end:
            return False
        self._logs.pop(name, None)
        self._signs.pop(name, None)
        return True

    def read(self, name: LogName, after: str = "-") -> tuple[list[LogLine], str]:
        """As Spool.read."""
        self._expire()
        found = [piece for piece in self._logs.get(name, []) if piece[0] > end_of(after)]
        return [line for _, lines in found for line in decode(name, lines)], f"{found[-1][0]}-0" if found else after

    def names(self, run_id: str, generation: int) -> list[LogName]:
        """As Spool.names."""
        return [name for name in self._signs if name[:2] == (run_id, generation)]

    def _turn(self, name: LogName) -> tuple[int, bytes]:
        return self._signs[name], f"{name.run_id}.{name.generation}:{name.node}:{name.attempt}".encode()

    def _expire(self) -> None:
        for name in [name for name, at in self._expires.items() if at <= self._now_ms()]:
            del self._expires[name]
            self._logs.pop(name, None)
