"""What the ledger writes down and what it tells: immutable entries, events, answers, and the names of what they are about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

Kind = Literal["hold", "release", "reserve", "extend", "settle", "void", "expire", "adjust"]

WASTE: Final = "waste.duplicate"


class RunKey(NamedTuple):
    """A run and its generation, from 1."""

    run: str
    generation: int = 1


class Execution(NamedTuple):
    """One attempt at one node: what is reserved, and settled or void, once."""

    run: str
    generation: int
    node: str
    attempt: int

    @property
    def key(self) -> RunKey:
        return RunKey(self.run, self.generation)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the ledger, never changed. All counters are sums over these lines.

    `amount` is micros: set aside (hold, reserve, extend), given back (release, void, expire), or charged (settle,
    adjust; an adjustment that refunds is the only negative amount). `released` is what the line takes off open
    reservations, `to_hold` what it adds to the run's hold (negative: takes). `day` is that of the reservation.
    """

    kind: Kind
    tenant: str
    run: str
    generation: int
    node: str
    attempt: int
    category: str
    amount: int
    price_version: int
    day: str
    cause: str
    released: int = 0
    to_hold: int = 0

    @property
    def key(self) -> RunKey:
        return RunKey(self.run, self.generation)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that others should hear of."""

    type: str
    tenant: str
    run: str = ""
    detail: dict[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a transition says: its status, an amount in micros, and if a limit refused: which, its value, what it met."""

    status: str
    micros: int = 0
    reason: str = ""
    limit: int = 0
    current: int = 0
    events: tuple[Event, ...] = ()
    entries: tuple[Entry, ...] = ()
