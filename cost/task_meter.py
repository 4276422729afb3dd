"""Metering of ordinary Celery tasks: from their prerun to their postrun, `meter` charges their claim."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final
from weakref import WeakValueDictionary

from billiard.process import current_process

from tenancy.errors import Unavailable

from .meter import Execution, Usage, metering
from .money import write_cats
from .prices import write_lines
from .task_ledger import GENERATION, Claim, TaskLedger


class Metered:
    """An ordinary task that runs in this process."""

    def __init__(self, ledger: TaskLedger, claim: Claim) -> None:
        self.ledger = ledger
        self.claim = claim
        self.reported = False
        self._covered = claim.amount
        # Each charge is told, also a covered one: whoever closes a killed task finds there what it had used.
        self._prices = ledger.prices.last(claim.tenant)
        execution = Execution(claim.run_id, GENERATION, claim.name, claim.ordinal, claim.tenant, self._prices, self._note)
        self._block: AbstractContextManager[Usage] = metering(execution)
        self._usage = self._block.__enter__()
        self._clock = _cpu_clock()
        self._started = self._clock()
        self._began = time.monotonic()

    def _note(self, cats: str) -> None:
        """Write down what is used with a charge that is about to count, and reserve what exceeds the reservation.

        Raises BudgetRefused, and Unavailable where Redis is away and more is needed than is reserved.
        """
        total = sum(int(pair.partition("=")[2]) for pair in cats.split(",") if pair)
        try:
            self.ledger.note(self.claim, cats, price_version=self._prices.version)
        except Unavailable:
            if total > self._covered:
                raise
        else:
            self._covered = max(self._covered, total)

    def leaving(self) -> None:
        """Say that the task is about to be published anew while this execution is not over. Raises as `TaskLedger.note`."""
        self.ledger.note(self.claim, write_cats(self._usage.by_category()), leaving=True, price_version=self._prices.version)

    def used(self) -> str:
        """Close the usage, with the CPU and wall seconds of the task; return it as the scripts read it."""
        self._usage.close(max(0.0, self._clock() - self._started), time.monotonic() - self._began)
        return write_cats(self._usage.by_category())

    def report(self, by: str) -> str:
        """Close the usage and charge it; return the answer of `TaskLedger.report`."""
        cats = self.used()
        return self.ledger.report(self.claim, cats, by, self._usage.execution.price_table.version, write_lines(self._usage.lines))

    def leave(self) -> None:
        """Let `meter` charge this task no more."""
        self._block.__exit__(None, None, None)


def _cpu_clock() -> Callable[[], float]:
    """CPU seconds of the process where it runs one task at a time, else of the thread."""
    return time.thread_time if current_process().name == "MainProcess" else time.process_time


running: dict[Claim, Metered] = {}
"""The executions of ordinary tasks in this process. In a pool of threads a retry may run beside the execution that asked for it."""

CLAIM_FIELD: Final = "headgate_task"
"""Of a request, as the pool's process has it: name, attempt, tenant and amount of its claim."""

claimed: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""The requests with a claim that this process, a worker's main one, still has, by task id; the claim is their `headgate_claim`."""


def claim_in(request: Any) -> Claim | None:
    """Return the claim that the main process put on a request, if it did."""
    found = getattr(request, CLAIM_FIELD, None)
    return Claim(str(request.id), str(found[0]), int(found[1]), str(found[2]), int(found[3])) if found else None


def claim_of(task_id: str) -> Claim | None:
    """Return the claim of a task by its id alone, in the main process: at a hard time limit Celery says no more than that."""
    found: Claim | None = getattr(claimed.get(task_id), "headgate_claim", None)
    return found
