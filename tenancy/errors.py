"""The errors of Headgate, one tree."""

from __future__ import annotations


class HeadgateError(Exception):
    """Everything that Headgate raises on purpose.

    ::

        HeadgateError
        ├── GraphInvalid         the graph has problems; all of them are listed
        ├── Refused              a limit stands in the way; says which, and when to try again
        │   ├── BudgetRefused    the money does not cover it
        │   ├── RunsLimit        the tenant runs as many runs as it may
        │   ├── QueueFull        the queue is at its cap, or nobody is there to serve it
        │   └── Rate             too many submissions in a short time
        ├── RunFailed            `result()` of a run that has none
        ├── WaitTimeout          the run goes on, only the waiting ended
        ├── Unavailable          Redis, the database or a worker cannot be reached
        │   └── Fenced           Redis was restarted; goes away when the next epoch is open
        ├── Unknown              no such run, tenant or node for this caller
        └── Conflict             the same key with another content
    """


class GraphInvalid(HeadgateError):
    """The graph cannot run; `problems` has one sentence for each reason, naming the node."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        super().__init__(f"the graph has {count}:\n" + "\n".join(f"  - {p}" for p in problems))


class Refused(HeadgateError):
    """A limit refused the request; nothing was stored or published.

    `limit` and `current` are in the unit of the limit (micros for budgets, a count otherwise);
    `retry_after_s` is None where waiting alone does not help.
    """

    def __init__(self, reason: str, *, limit: int | None = None, current: int | None = None, retry_after_s: float | None = None) -> None:
        self.reason = reason
        self.limit = limit
        self.current = current
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class BudgetRefused(Refused):
    """The budget does not cover the cheapest plan that still runs every required node."""


class RunsLimit(Refused):
    """The tenant has as many running runs as its policy allows."""


class QueueFull(Refused):
    """The tenant's queue is at its cap, or no live worker serves a task of the graph."""


class Rate(Refused):
    """The tenant submits faster than its policy allows."""


class RunFailed(HeadgateError):
    """The run ended without the result that was asked for."""

    def __init__(self, outcome: str, node: str | None, cause: str | None) -> None:
        self.outcome = outcome
        self.node = node
        self.cause = cause
        where = f" at node {node!r}" if node else ""
        super().__init__(f"the run is {outcome}{where}" + (f": {cause}" if cause else ""))


class WaitTimeout(HeadgateError):
    """The time to wait is over; the run goes on."""


class Unavailable(HeadgateError):
    """A service that this call needs cannot be reached; says which, and how to start it."""


class Fenced(Unavailable):
    """The Redis server is not the one that the epoch is bound to; nothing was changed."""


class Unknown(HeadgateError):
    """There is no such run, tenant or node for this caller."""


class Conflict(HeadgateError):
    """The key was used before, with another content."""
