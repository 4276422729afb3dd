"""The money of a tenant's day: `tenants/{tenant_id}/budget_usage.json`, and the thread that writes it within a second of a change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.artifacts import place
from orchestrator.artifacts.file import write_json
from orchestrator.store.budgets import Book, Budget, read_budget
from orchestrator.store.engine import reading
from orchestrator.store.spend import tenant_ids
from tenancy.errors import Unavailable

SCHEMA_VERSION = 1

SPACE_S = 0.25
"""Between two writings about one tenant; four times as long as the first took, where that is more."""

CROWD = 20
"""Where more tenants than this have changed, the thread rests as long as it works: the process is the recorder's."""

AGAIN_S = 5.0
"""When what could not be written is tried again."""

LAST_S = 5.0
TENANTS_AT_ONCE = 1_000

log = logging.getLogger("headgate.artifacts")

_PASSING = (OSError, SQLAlchemyError, Unavailable, AttributeError, KeyError, TypeError, ValueError)


def budget_usage(budget: Budget, now_ms: int) -> dict[str, Any]:
    """Return the artifact."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tenant_id": budget.tenant,
        "currency": budget.currency,
        "position": str(budget.position),
        **_book(budget.day),
        "month": None if budget.month is None else _book(budget.month),
        "running_runs": budget.running_runs,
        "max_concurrent_runs": budget.max_concurrent_runs,
        "cost_by_category": dict(budget.by_category),
        "top_costs": [asdict(each) for each in budget.top],
        "updated_at": now_ms / 1000,
    }


def _book(book: Book) -> dict[str, Any]:
    return {
        "period": book.period,
        "limit": book.limit,
        "settled": book.settled,
        "reserved": book.reserved,
        "rate": book.rate_ppm / 1_000_000,
        "level": book.level.name,
    }


class BudgetWriter:
    """Writes about the tenants that it is told of, in a thread of its own; what fails is logged and tried again.

    clock: returns the platform's time in ms, by which a day is today.
    """

    def __init__(self, engine: Engine, root: Path, clock: Callable[[], int]) -> None:
        self.engine = reading(engine)
        self.root = root
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted: dict[str, float] = {}  # since the last writing, by when the next may be
        self._rests: dict[str, float] = {}
        self._told = threading.Event()
        self._ending = False
        self._day: int | None = None
        self._thread = threading.Thread(target=self._run, name="headgate-budgets", daemon=True)

    def changed(self, tenants: Iterable[str]) -> None:
        """Have the files of these tenants written soon."""
        if found := set(tenants):
            with self._lock:
                self._wanted |= {tenant: self._rests.get(tenant, 0.0) for tenant in found - self._wanted.keys()}
            self._tell()

    def day(self, day: int) -> None:
        """Have the files of all tenants written if it is another day than when this was last said, or said first."""
        if day != self._day:
            self._day = day
            self.changed(self._everybody())

    def close(self) -> None:
        """Write what was asked for, within a few seconds."""
        self._ending = True
        self._told.set()
        if self._thread.ident is not None:
            self._thread.join(LAST_S)

    def _everybody(self) -> list[str]:
        found: list[str] = []
        while piece := tenant_ids(self.engine, None, found[-1] if found else None, TENANTS_AT_ONCE):
            found += piece
        return found

    def _tell(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._told.set()

    def _run(self) -> None:
        while True:
            self._told.wait(self._until_next())
            self._told.clear()
            ending = self._ending
            due = self._due(everything=ending)
            for tenant in due:
                took = self._write(tenant)
                if len(due) > CROWD and not self._ending:
                    time.sleep(took)
            if ending:
                return

    def _until_next(self) -> float | None:
        with self._lock:
            return max(0.0, min(self._wanted.values()) - time.monotonic()) if self._wanted else None

    def _due(self, *, everything: bool) -> list[str]:
        now = time.monotonic()
        with self._lock:
            found = [tenant for tenant, at in self._wanted.items() if everything or at <= now]
            # Taken off before it is read: what is told meanwhile is written again.
            for tenant in found:
                del self._wanted[tenant]
            self._rests = {tenant: at for tenant, at in self._rests.items() if at > now}
        return found

    def _write(self, tenant: str) -> float:
        """Write about a tenant, and return how long that took, in seconds."""
        began = time.monotonic()
        try:
            now = self._clock()
            budget = read_budget(self.engine, tenant, now // 86_400_000)
            if budget is not None:
                write_json(place.budget_usage(self.root, tenant), budget_usage(budget, now))
            with self._lock:
                self._rests[tenant] = time.monotonic() + max(SPACE_S, 4 * (time.monotonic() - began))
        except _PASSING as error:
            log.warning("what tenant %s uses could not be written, trying again in %.0f s: %s", tenant, AGAIN_S, error)
            with self._lock:
                self._wanted[tenant] = began + AGAIN_S
        return time.monotonic() - began
