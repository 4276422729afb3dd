"""The chain of a run's log: each event is bound to all before it by HMAC-SHA-256 under the deployment's key.

A link is made from the link before it, the position of the event and its text, byte for byte; the first one from the names of run and
generation. The seal of a chain binds how many events it has, so that a log that is cut at its end is not whole either.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from orchestrator.store.position import START, Position

_DIGEST = "sha256"
_KEY_ID_DIGITS = 16


def _mac(key: bytes, *lines: object) -> str:
    # A line feed separates: only the last line, the text, may hold one.
    return hmac.digest(key, "\n".join(map(str, lines)).encode("utf-8", "surrogatepass"), _DIGEST).hex()


def key_id(key: bytes) -> str:
    """Return what tells keys apart without giving them away."""
    return hashlib.sha256(b"headgate log key\n" + key).hexdigest()[:_KEY_ID_DIGITS]


def genesis(key: bytes, run_id: str, generation: int) -> str:
    """Return what the first link of a generation is made from."""
    return _mac(key, "begin", generation, run_id)


def link(key: bytes, before: str, position: Position, text: str) -> str:
    """Return the link of an event, given the link before it."""
    return _mac(key, "event", before, position, text)


def file_mac(key: bytes, head: str, foot: str) -> str:
    """Return what binds the first and the last line of a log that is kept as a file."""
    return _mac(key, "file", hashlib.sha256(head.encode("utf-8", "surrogatepass")).hexdigest(), foot)


class Head(NamedTuple):
    """The end of a chain: how many links it has, and position and link of the last."""

    events: int
    position: Position
    link: str

    @classmethod
    def new(cls, key: bytes, run_id: str, generation: int) -> Head:
        """Return the head of a chain without events."""
        return cls(0, START, genesis(key, run_id, generation))

    def then(self, key: bytes, position: Position, text: str) -> Head:
        """Return the head after one more event."""
        return Head(self.events + 1, position, link(key, self.link, position, text))

    def seal(self, key: bytes, run_id: str, generation: int) -> str:
        """Return the seal, which nobody can make for another end of the log without the key."""
        return _mac(key, "seal", generation, self.events, self.position, self.link, run_id)
