"""A line of a node's log, and the name of a log: one attempt at one node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

SUFFIX: Final = ".log"
"""Ends the name of an object that is a log; those of results end in .json."""


class LogName(NamedTuple):
    """The attempt that a log is of."""

    run_id: str
    generation: int
    node: str
    attempt: int

    @property
    def object(self) -> str:
        """The name of the object that the log is kept as."""
        return f"{self.run_id}/{self.generation}/{self.node}.{self.attempt}{SUFFIX}"

    def could_be(self) -> bool:
        """Say whether a node could have this id; only then is the object's name one below its generation, whoever asks."""
        return re.fullmatch(r"\w[\w.-]*", self.node, re.ASCII) is not None

    @classmethod
    def of_object(cls, name: str) -> LogName | None:
        """Return the log that an object of this name is, None where it is none."""
        pieces = name.split("/")
        if len(pieces) != 3 or not pieces[2].endswith(SUFFIX) or not pieces[1].isdigit():
            return None
        node, dot, attempt = pieces[2].removesuffix(SUFFIX).rpartition(".")
        return cls(pieces[0], int(pieces[1]), node, int(attempt)) if dot and attempt.isdigit() else None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: `number` counts from 1 in its attempt, `at` is in epoch seconds by the worker's clock.

    `level` is that of `logging`, or `stdout` or `stderr`; `logger` is '' for these. `text` may have several lines.
    """

    node: str
    attempt: int
    number: int
    at: float
    level: str
    logger: str
    text: str


def encode(number: int, at_ms: int, level: str, logger: str, text: str) -> bytes:
    """Return a line as it is stored: an object of JSON without a line break, and one behind it."""
    fields = {"n": number, "at": at_ms, "level": level, "logger": logger, "text": text}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"


def decode(name: LogName, stored: bytes | str) -> list[LogLine]:
    """Return the lines of what is stored of a log; what is no line of ours is left out."""
    found = []
    for text in stored.splitlines() if isinstance(stored, bytes) else stored.split("\n"):
        try:
            line = json.loads(text)
            number, at, said = int(line["n"]), int(line["at"]) / 1000, str(line["text"])
        except (ValueError, TypeError, KeyError):
            continue
        found.append(LogLine(name.node, name.attempt, number, at, str(line.get("level", "")), str(line.get("logger", "")), said))
    return found


def merged(*pieces: Sequence[LogLine]) -> list[LogLine]:
    """Return the lines of several pieces of one log in their order, each once."""
    return [line for _, line in sorted({line.number: line for piece in pieces for line in piece}.items())]


def last_bytes(lines: Iterable[LogLine], bytes_max: int) -> bytes:
    """Return the last of these lines as they are stored, as many as fit into so many bytes, and one at least."""
    kept: list[bytes] = []
    size = 0
    for line in reversed(list(lines)):
        text = encode(line.number, round(line.at * 1000), line.level, line.logger, line.text)
        size += len(text)
        if kept and size > bytes_max:
            break
        kept.append(text)
    return b"".join(reversed(kept))
