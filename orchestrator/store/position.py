"""A position in the event log: which epoch, and which event of it."""

from __future__ import annotations

from typing import NamedTuple, Self


class Position(NamedTuple):
    """The id of an event; positions compare as the events happened.

    `epoch` counts from 1, `seq` from 1 within an epoch; (0, 0) stands before everything.
    """

    epoch: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position written as `epoch-seq`, which is also its id in the Redis stream; raises ValueError otherwise."""
        epoch, _, seq = text.partition("-")
        return cls(int(epoch), int(seq))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START = Position(0, 0)
