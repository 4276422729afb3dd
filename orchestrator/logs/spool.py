"""The spool: what attempts that run have said so far, in Redis, where every machine can read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from orchestrator import keys
from orchestrator.logs.line import LogLine, LogName, decode
from tenancy.link import Link

PREFIX: Final = "orchestrator/logs/"

KEPT_MS: Final = 24 * 3_600_000
"""How long a log stays without a sign of life of its attempt; it is put away long before, where somebody does so."""

IDLE_MS: Final = 10_000
"""A log of an attempt that is over is put away by others once nothing came for so long."""

READ_AT_ONCE: Final = 1_000


class Spool:
    """One method for each script; arguments and answers as docs/protocol.md has them. All raise Unavailable, and Fenced between epochs.

    :param bytes_max: how much of each log is kept, bytes.
    """

    def __init__(self, link: Link, bytes_max: int) -> None:
        self.link = link
        self.bytes_max = bytes_max

    def append(self, name: LogName, pieces: Sequence[tuple[int, bytes]]) -> int:
        """Add pieces, each with the bytes of the log up to its end; what is there is passed over. Return the end of what is there then."""
        flat = [value for piece in pieces for value in piece]
        return int(self.link.call(PREFIX + "append", *name, self.bytes_max, KEPT_MS, *flat))

    def idle(self, idle_ms: int = IDLE_MS, most: int = 100) -> list[LogName]:
        """Return logs of attempts that are over, which nobody put away for so long; whoever asks has that long for it."""
        return [_name(text) for text in self.link.call(PREFIX + "idle", idle_ms, most, KEPT_MS)]

    def drop(self, name: LogName, end: int) -> bool:
        """Let go of a log that is put away up to `end`; False where more was said since."""
        return bool(self.link.call(PREFIX + "drop", *name, end))

    def read(self, name: LogName, after: str = "-") -> tuple[list[LogLine], str]:
        """Return the lines that are there, of those behind the position `after`, and the position to go on from."""
        first = "-" if after == "-" else f"({after}"
        entries: Any = self.link.read("XRANGE", keys.log(*name), first, "+")
        if not entries:
            return [], after
        return [line for _, fields in entries for line in decode(name, fields["l"])], str(entries[-1][0])

    def names(self, run_id: str, generation: int) -> list[LogName]:
        """Return the logs of a run that are there."""
        found, cursor = [], 0
        while True:
            cursor, rows = self.link.read("ZSCAN", keys.LOGS, cursor, "MATCH", f"{run_id}.{generation}:*", "COUNT", READ_AT_ONCE)
            found += [_name(row[0]) for row in rows]
            if int(cursor) == 0:
                return found


def end_of(position: str) -> int:
    """Return how many bytes of a log are before a position that `Spool.read` gave."""
    return 0 if position == "-" else int(position.partition("-")[0])


def _name(text: str) -> LogName:
    of_run, node, attempt = text.split(":")
    run_id, _, generation = of_run.rpartition(".")
    return LogName(run_id, int(generation), node, int(attempt))
