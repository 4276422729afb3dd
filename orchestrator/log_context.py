"""What a line of the platform's own log is about: run, node, tenant, for whatever is logged inside a block, by libraries too.

structlog has the like (`structlog.contextvars`); here it is one variable, because producers import this and a node passes it twice: neither
is to wait for a library that only the processes need which write logs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

FIELDS = ("tenant", "run", "generation", "node", "attempt", "schedule", "decision")
"""What a line may be about. `extra=` of `logging` may give them for one line."""

_fields: ContextVar[Mapping[str, object]] = ContextVar("headgate_about", default={})  # noqa: B039 (never changed, only replaced)
_process: dict[str, object] = {}


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Have each line that is logged inside the block say what it is about; names are those of `FIELDS`."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def of_process(**fields: object) -> None:
    """Have each line of this process that is written as JSON say who wrote it: `service`, `worker`."""
    _process.update(fields)


def known() -> Mapping[str, object]:
    """Return what a line that is logged here is about."""
    return _fields.get()


def process() -> Mapping[str, object]:
    """Return what is said of this process."""
    return _process
