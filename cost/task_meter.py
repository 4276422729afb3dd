"""Metering of ordinary Celery tasks: from their prerun to their postrun, `meter` charges their claim."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

from billiard.process import current_process

from tenancy.errors import Unavailable

from .meter import Execution, Usage, metering
from .money import write_cats
from .prices import Quantity
from .task_ledger import GENERATION, Claim, TaskLedger


class NotedUsage(Usage):
    """Usage that is written down in Redis with each charge, before the task goes on: whoever closes a killed task finds it there.

    A charge that exceeds what is reserved reserves more; `charge` raises BudgetRefused when the budget does not cover it, and the task
    should end then. It counts all the same, since it was used.
    """

    def __init__(self, ledger: TaskLedger, claim: Claim, execution: Execution) -> None:
        super().__init__(execution)
        self._ledger = ledger
        self._claim = claim

    def charge(self, category: str, quantity: Quantity, unit: str, *, used: bool = False) -> None:
        super().charge(category, quantity, unit, used=used)
        try:
            self._ledger.note(self._claim, write_cats(self.by_category()))
        except Unavailable:
            return  # what is in memory is reported at the end, or noted with the next charge


class Metered:
    """An ordinary task that runs in this process."""

    def __init__(self, ledger: TaskLedger, claim: Claim) -> None:
        self.ledger = ledger
        self.claim = claim
        self.reported = False
        execution = Execution(claim.run_id, GENERATION, claim.name, claim.attempt, claim.tenant)
        self._block: AbstractContextManager[Usage] = metering(execution, partial(NotedUsage, ledger, claim))
        self._usage = self._block.__enter__()
        self._clock = _cpu_clock()
        self._started = self._clock()
        self._began = time.monotonic()

    def leaving(self) -> None:
        """Say that the task is about to be published anew while this execution is not over. Raises as `TaskLedger.note`."""
        self.ledger.note(self.claim, write_cats(self._usage.by_category()), leaving=True)

    def used(self) -> str:
        """Close the usage, with the CPU and wall seconds of the task; return it as the scripts read it."""
        self._usage.close(max(0.0, self._clock() - self._started), time.monotonic() - self._began)
        return write_cats(self._usage.by_category())

    def leave(self) -> None:
        """Let `meter` charge this task no more."""
        self._block.__exit__(None, None, None)


def _cpu_clock() -> Callable[[], float]:
    """CPU seconds of the process where it runs one task at a time, else of the thread."""
    return time.thread_time if current_process().name == "MainProcess" else time.process_time


running: dict[Claim, Metered] = {}
"""The executions of ordinary tasks in this process. In a pool of threads a retry may run beside the execution that asked for it."""

CLAIM_FIELD: Final = "headgate_task"
"""Of a request, as the pool's process has it: name, attempt and tenant of its claim."""

claimed: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""The requests with a claim that this process, a worker's main one, still has, by task id; the claim is their `headgate_claim`."""


def claim_in(request: Any) -> Claim | None:
    """Return the claim that the main process put on a request, if it did."""
    found = getattr(request, CLAIM_FIELD, None)
    return Claim(str(request.id), str(found[0]), int(found[1]), str(found[2])) if found else None


def claim_of(task_id: str) -> Claim | None:
    """Return the claim of a task by its id alone, in the main process: at a hard time limit Celery says no more than that."""
    found: Claim | None = getattr(claimed.get(task_id), "headgate_claim", None)
    return found
