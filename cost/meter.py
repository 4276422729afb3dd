"""Metering: what a node uses while it runs, charged by its own code through `meter`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tenancy.errors import HeadgateError

from .money import MICROS_MAX, normalise_category, write_cats
from .prices import DEFAULT_PRICES, EXACT, MICROS, WALL, PriceTable, Quantity, UsageLine, check_quantity, settle_micros

ASK_EVERY_S: Final = 1.0
"""How often `meter.cancelled()` asks at most."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One attempt at one node: who pays, at which prices.

    extend: called with what is used so far (`llm=30000,compute=12`) before a charge counts that passes what is known to be covered;
    reserves what is missing, or raises BudgetRefused. None: charges pass unasked, and the settlement has the last word.
    reserved_micros: what is covered before the first call; None is nothing, so that every charge is told.
    strict: what is measured without asking ends with what is covered: such an execution costs no more than was reserved for it.
    cancelled: says whether it should stop; asked at most once a second.
    """

    run_id: str
    generation: int
    node_id: str
    attempt: int
    tenant: str
    price_table: PriceTable = DEFAULT_PRICES
    extend: Callable[[str], None] | None = field(default=None, compare=False)
    reserved_micros: int | None = None
    strict: bool = False
    cancelled: Callable[[], bool] | None = field(default=None, compare=False)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at this node in this generation."""
        return f"{self.run_id}.{self.generation}.{self.node_id}"


class _TooMuch(ValueError):
    """The charges of one execution add up to more than the largest amount."""


class Usage:
    """What one execution has used so far; safe to charge from several threads.

    Quantities are summed per category and unit without rounding, so that many small charges cost what one large
    one does.

    Whether the money is there is asked before a charge counts, so what is refused is not charged. What was used already (time that
    has passed, and `used=True`) counts whatever the answer is, so nothing used is lost.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._lock = threading.Lock()
        self._quantities: dict[tuple[str, str], Decimal] = {}
        self._unknown: dict[str, None] = {}
        self._closed = False
        self._covered = execution.reserved_micros
        self._cancelled = False
        self._asked_at: float | None = None

    @property
    def lines(self) -> tuple[UsageLine, ...]:
        """One line per category and unit, in the order of their first charge."""
        with self._lock:
            return self._lines(self._quantities)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each unknown category that was charged."""
        with self._lock:
            return tuple(f"category {name!r} is unknown and was booked as other" for name in self._unknown)

    def by_category(self) -> dict[str, int]:
        """Return micros by category, rounded half-even once per line; categories that were not charged are absent."""
        return settle_micros(self.lines, self.execution.price_table)

    def charge(self, category: str, quantity: Quantity, unit: str, *, used: bool = False) -> None:
        """Add `quantity` of `unit`; see `Meter.charge`. Raises RuntimeError once the usage is closed."""
        # Under the lock also while Redis is asked: what it is told must only grow, or a late answer would cover too little.
        with self._lock:
            if self._closed:
                raise RuntimeError(f"node {self.execution.node_id!r} has ended and can no longer be charged")
            before = self._quantities
            cats = self._add(category, quantity, unit)
            try:
                self._cover(cats)
            except BaseException:
                if not used:
                    self._quantities = before
                raise

    def cancelled(self) -> bool:
        """Say whether the execution should stop: once it should, it should for good."""
        with self._lock:
            now = time.monotonic()
            if not self._cancelled and self.execution.cancelled and (self._asked_at is None or now - self._asked_at >= ASK_EVERY_S):
                self._asked_at = now
                self._cancelled = self.execution.cancelled()
            return self._cancelled

    def close(self, cpu_seconds: float | None = None, wall_seconds: float | None = None) -> None:
        """Accept no more charges, after adding the CPU and wall seconds that the execution took if they are given.

        A node pays for its CPU besides what it charged itself. Its wall seconds are `compute/wall_second`, and what
        `meter.timed("compute")` counted is part of them. Both were used, so nobody is asked: what exceeds the reservation is part of what
        the bound of a budget allows. Of a strict execution only as much counts as is reserved or can be. A second call changes nothing.
        Raises ValueError for seconds that are no finite number from 0.
        """
        cpu = None if cpu_seconds is None else check_quantity(cpu_seconds)
        wall = None if wall_seconds is None else check_quantity(wall_seconds)
        with self._lock:
            if not self._closed:
                before = self._quantities
                # A node that has charged the largest amount there is must still be able to end.
                with suppress(_TooMuch):
                    if cpu is not None:
                        self._add("compute", cpu, "second")
                with suppress(_TooMuch):
                    timed = self._quantities.get(("compute", WALL), Decimal(0))
                    if wall is not None and wall > timed:
                        self._add("compute", wall - timed, WALL)
                if self.execution.strict:
                    self._end_within(before)
            self._closed = True

    def _end_within(self, before: dict[tuple[str, str], Decimal]) -> None:
        """Let what was measured since `before` count as far as it is covered, or can be."""
        try:
            self._cover(settle_micros(self._lines(self._quantities), self.execution.price_table))
        except HeadgateError:
            self._quantities = before
            charged = sum(settle_micros(self._lines(before), self.execution.price_table).values())
            if (left := (self._covered or 0) - charged) > 0:
                self._add("compute", left, MICROS)

    def _cover(self, cats: dict[str, int]) -> None:
        total = sum(cats.values())
        if self.execution.extend is not None and (self._covered is None or total > self._covered):
            self.execution.extend(write_cats(cats))
            if self._covered is not None:
                self._covered = total

    def _add(self, category: str, quantity: Quantity, unit: str) -> dict[str, int]:
        changed = dict(self._quantities)
        booked, unknown = _check(self.execution.price_table, category, quantity, unit)
        changed[category, unit] = EXACT.add(changed.get((category, unit), Decimal(0)), booked)
        cats = settle_micros(self._lines(changed), self.execution.price_table)
        if sum(cats.values()) > MICROS_MAX:
            raise _TooMuch(f"node {self.execution.node_id!r} would cost more than 2^53-1 micros")
        self._quantities = changed
        if unknown:
            self._unknown[category] = None
        return cats

    @staticmethod
    def _lines(quantities: dict[tuple[str, str], Decimal]) -> tuple[UsageLine, ...]:
        return tuple(UsageLine(category, unit, quantity) for (category, unit), quantity in quantities.items())


def _check(table: PriceTable, category: object, quantity: object, unit: object) -> tuple[Decimal, bool]:
    """Return the quantity and whether the category is unknown, or raise ValueError."""
    if not isinstance(category, str) or not 0 < len(category) <= 64:
        raise ValueError("a category is a text of 1 to 64 characters")
    if not isinstance(unit, str) or not 0 < len(unit) <= 64:
        raise ValueError("a unit is a text of 1 to 64 characters")
    exact = check_quantity(quantity)
    if unit == MICROS and exact != exact.to_integral_value():
        raise ValueError("micros are charged as whole numbers")
    table.price(category, exact, unit)
    return exact, normalise_category(category)[1]


_current: ContextVar[Usage | None] = ContextVar("headgate_usage", default=None)
_timing: ContextVar[frozenset[tuple[int, str]]] = ContextVar("headgate_timing", default=frozenset())
_active: set[Usage] = set()
_active_lock = threading.Lock()


@contextmanager
def metering(execution: Execution) -> Iterator[Usage]:
    """Let `meter` charge `execution` inside the block; the usage stays readable, and can be closed, after it."""
    usage = Usage(execution)
    token = _current.set(usage)
    with _active_lock:
        _active.add(usage)
    try:
        yield usage
    finally:
        with _active_lock:
            _active.discard(usage)
        _current.reset(token)


def _usage() -> Usage | None:
    usage = _current.get()
    if usage is not None:
        return usage
    # asyncio hands the context on, threading.Thread does not: a thread that a node started charges that node as
    # long as it is the only one in this process, as in a prefork worker.
    with _active_lock:
        if len(_active) > 1:
            raise RuntimeError(
                "several nodes run in this process and this thread belongs to none of them: start it with contextvars.copy_context().run"
            )
        return next(iter(_active), None)


class Meter:
    """What a task uses to say what it used; the same code runs outside a node, where nothing is recorded."""

    def charge(self, category: str, quantity: Quantity, unit: str, *, used: bool = False) -> None:
        """Charge the running node for `quantity` of `unit`, at the price of its tenant.

        `category` is llm, retrieval, storage, compute or other; an unknown one is booked as other, with a warning.
        `quantity` is a finite number from 0 to 2^53-1. The unit "micros" books whole micros directly.

        A charge beyond what is reserved reserves more first. Where the budget does not cover that, BudgetRefused is raised and the charge
        does not count: charge before you use, catch the refusal and go on with less. What is known only afterwards is charged with
        `used=True`: it counts, and BudgetRefused then says to use no more. Unavailable is raised, and counts, likewise.

        Raises ValueError for arguments out of range and for a unit without a price, also outside a node.
        """
        usage = _usage()
        if usage is None:
            _check(DEFAULT_PRICES, category, quantity, unit)
        else:
            usage.charge(category, quantity, unit, used=used)

    @contextmanager
    def timed(self, category: str) -> Iterator[None]:
        """Charge the running node for the seconds that the block takes, as `wall_second` of `category`; also when it raises.

        A block inside another one of the same category adds nothing: that time is counted already, also in the coroutines and
        threads that take the context along. Blocks side by side in other threads count each.

        Time that passed was used: it counts, and where the budget does not cover it BudgetRefused is raised at the end of the block,
        unless the block raised something itself. Raises ValueError before the block for a category that is none.
        """
        usage = _usage()
        _check(DEFAULT_PRICES if usage is None else usage.execution.price_table, category, 0, WALL)
        place, outer = (id(usage), category), _timing.get()
        if usage is None or place in outer:
            yield
            return
        token = _timing.set(outer | {place})
        started = time.monotonic()
        try:
            yield
        except BaseException:
            with suppress(HeadgateError, RuntimeError, ValueError):
                usage.charge(category, time.monotonic() - started, WALL, used=True)
            raise
        else:
            usage.charge(category, time.monotonic() - started, WALL, used=True)
        finally:
            _timing.reset(token)

    def cancelled(self) -> bool:
        """Say whether the running node should stop: it, its run, its tenant or everything was cancelled, or another attempt runs by now.

        Cheap enough for an inner loop: Redis is asked at most once a second. A node that returns early is `cancelled` in either case
        where it was cancelled itself; of a cancelled run it has the outcome of what it returns. False outside a node.
        """
        usage = _usage()
        return usage is not None and usage.cancelled()

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1; 1 outside a node. An ordinary task that comes again an hour after its end begins anew."""
        usage = _usage()
        return 1 if usage is None else usage.execution.attempt

    @property
    def idempotency_key(self) -> str:
        """A key for effects outside the platform, the same for every attempt at this node; "local" outside a node."""
        usage = _usage()
        return "local" if usage is None else usage.execution.idempotency_key


meter: Final = Meter()
"""The meter of whichever node is running here."""
