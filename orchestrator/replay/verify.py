"""The whole record: the chain of every run's generation, of ordinary tasks, and of what belongs to no run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Engine, or_, select

from orchestrator.store import tables as t
from orchestrator.store.chain import PLATFORM, Name
from orchestrator.store.read import open_record

from .record import read_chain
from .tampering import out_of_order, tampering

OF_PLATFORM = or_(t.event.c.run_id.is_(None), t.event.c.run_id == "", t.event.c.generation.is_(None))
"""Events that belong to no generation of a run."""


@dataclass(frozen=True)
class Verified:
    """A chain that was checked: of `run.generation`, or of the platform; `differences` is empty where it is whole."""

    chain: str
    events: int
    differences: tuple[str, ...]


def verify(engine: Engine, key: bytes, *, platform: bool = False) -> Iterator[Verified]:
    """Check the chain of the platform's own events, and unless `platform` says so of everything else on record. Raises Unavailable.

    What runs goes on meanwhile: each chain is read with its end at one moment.
    """
    for name in [PLATFORM] if platform else [PLATFORM, *_names(engine)]:
        log = read_chain(engine, name, OF_PLATFORM if name == PLATFORM else None)
        differences = (*log.problems, *out_of_order(log), *tampering(log, key))
        yield Verified("platform" if name == PLATFORM else log.name, sum(not step.passed for step in log.steps), differences)


def _names(engine: Engine) -> list[Name]:
    """Return the chains on record, and those that events are there for and no end; not those that were let go of."""
    chained = select(t.chain.c.run_id, t.chain.c.generation).where(t.chain.c.run_id != "")
    logged = select(t.event.c.run_id, t.event.c.generation).where(t.event.c.run_id != "", t.event.c.generation.is_not(None)).distinct()
    going = select(t.run.c.run_id, t.run.c.generation).where(t.run.c.logged == 1)
    with open_record(engine) as connection:
        found = {(row.run_id, row.generation) for query in (chained, logged) for row in connection.execute(query)}
        found -= {(row.run_id, row.generation) for row in connection.execute(going)}
    return sorted(found)
