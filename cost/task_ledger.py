"""The money of ordinary Celery tasks on Redis: claim, note, report, close."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tenancy.errors import BudgetRefused, Unavailable
from tenancy.link import Link

from .price_book import PriceBook

SWEPT_AT_ONCE: Final = 200
TASK_PREFIX: Final = "task."
ATTEMPTS_PER_HOUR: Final = 1_000
HOURS_FROM_MS: Final = 1_767_225_600_000
"""2026-01-01 UTC, as in `tasks.lua`."""
GENERATION: Final = 0
"""Of every execution of an ordinary task; the run's is `task.{task id}`."""


class Claim(NamedTuple):
    """One execution of an ordinary task: the key of its money."""

    task_id: str
    name: str
    attempt: int
    tenant: str
    amount: int
    """Micros that were reserved at first."""

    @property
    def ordinal(self) -> int:
        """The how many-th execution of its task this is, since Headgate began to remember the task: `attempt` without its hour."""
        return self.attempt % ATTEMPTS_PER_HOUR

    @property
    def run_id(self) -> str:
        """What the ledger calls the run of this task."""
        return TASK_PREFIX + self.task_id


def attempts_before(now_ms: int) -> int:
    """Return how many attempts of an ordinary task may have been handed out by now, in an epoch that was never rebuilt."""
    return ATTEMPTS_PER_HOUR * max(0, (now_ms - HOURS_FROM_MS) // 3_600_000)


class Delivery(NamedTuple):
    """Who took a message: `claim` is new for each time a worker accepts it; the next three are '' unless the fair queue delivered it.

    number: '' where the message is acknowledged before it runs; such an execution is lost when its worker is.
    """

    claim: str
    inc: str
    tag: str
    number: str
    worker: str


class Refusal(NamedTuple):
    """Why a task may not run, and the numbers in micros where there are any."""

    reason: str
    limit: str
    current: str

    def sentence(self, tenant: str, amount: int) -> str:
        """Say it to a person."""
        if self.reason == "budget":
            return f"tenant {tenant!r} has {self.current} of {self.limit} micros committed today, and the task needs {amount} more"
        if self.reason in ("closed", "suspended"):
            return f"tenant {tenant!r} is not active: it is {self.reason}"
        if self.reason == "other_tenant":
            return f"the task's id is in use by another tenant than {tenant!r}"
        return f"there is no tenant {tenant!r}; create it with `headgate tenant create {tenant}`"


class TaskLedger:
    """One method for each script of ordinary tasks.

    Each raises Unavailable (Fenced between two epochs) when Redis is away; each may be repeated.

    :param url: returns the URL of Headgate's Redis as redis-py reads it; asked at the first call.
    :param lag_ms: returns how far the record may be behind before nothing is reserved any more; 0 is no limit.
    :param silent_s: a task that another transport than the fair one delivered counts as lost after so many seconds without a sign.
    """

    def __init__(
        self, url: Callable[[], str], *, silent_s: float = 3600.0, timeout_s: float = 2.0, lag_ms: Callable[[], int] = lambda: 0
    ) -> None:
        self._url = url
        self._lag_ms = lag_ms
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._prices: PriceBook | None = None
        self.silent_ms = int(silent_s * 1000)

    @property
    def link(self) -> Link:
        """The link to Redis."""
        if self._link is None:
            self._link = Link(self._url(), timeout_s=self._timeout_s)
        return self._link

    @property
    def prices(self) -> PriceBook:
        """The price tables by tenant."""
        if self._prices is None:
            self._prices = PriceBook(self.link)
        return self._prices

    def begin(self, task_id: str, name: str, tenant: str, amount: int, delivery: Delivery) -> Claim | Refusal:
        """Reserve `amount` micros for an execution, or say why not; the same again for the same claim.

        Raises Unavailable while the record is further behind than it may be.
        """
        reply = self.link.call(
            "cost/task_begin",
            task_id, name, tenant, amount, delivery.claim, delivery.inc, delivery.tag, delivery.number, delivery.worker, self.silent_ms,
            self._lag_ms(),
        )  # fmt: skip
        if reply[0] == "later":
            raise Unavailable("the recorder is behind: nothing more is reserved until it has caught up")
        if reply[0] == "run":
            return Claim(task_id, name, int(reply[1]), tenant, amount)
        return Refusal(*map(str, reply[1:4]))

    def note(self, claim: Claim, cats: str, *, leaving: bool = False, price_version: str = "") -> None:
        """Write down what is used so far, and reserve what exceeds the reservation.

        leaving: the task is being published anew, so that its next claim may come before the report of this one.
        Raises BudgetRefused when the budget does not cover it; nothing is written down then.
        """
        reply = self.link.call("cost/task_note", claim.task_id, claim.name, claim.attempt, cats, int(leaving), price_version)
        if reply[0] == "refused":
            limit, current = int(reply[1]), int(reply[2])
            raise BudgetRefused(
                f"tenant {claim.tenant!r} has {current} of {limit} micros committed today, and {claim.name} needs more than that leaves",
                limit=limit,
                current=current,
            )

    def report(self, claim: Claim, cats: str, by: str, price_version: str = "", lines: str = "") -> str:
        """Charge what the execution used: settled, same, conflict, waste (it was given up before) or unknown."""
        return str(
            self.link.call("cost/task_report", claim.task_id, claim.name, claim.attempt, cats, by, claim.tenant, price_version, lines)
        )

    def close(self, claim: Claim, by: str) -> str:
        """Charge what the execution had noted, as nobody will report: settled, void (nothing), same or unknown."""
        return str(self.link.call("cost/task_close", claim.task_id, claim.name, claim.attempt, by))


@dataclass(frozen=True)
class Terms:
    """What `install` was told: who pays for untagged tasks (None: nobody), micros by task name, and where the money is."""

    ledger: TaskLedger
    untagged: str | None = None
    estimates: Mapping[str, int] = field(default_factory=dict)


def sweep_tasks(link: Link, age_ms: int) -> int:
    """Close the executions of ordinary tasks whose worker is gone and that no signal closed; return how many.

    age_ms: executions with a younger sign of life are left alone. The clock is Redis's. Raises Unavailable.
    """
    first, closed = 0, 0
    while first >= 0:
        first, found = map(int, link.call("cost/task_sweep", age_ms, first, SWEPT_AT_ONCE))
        closed += found
    return closed
