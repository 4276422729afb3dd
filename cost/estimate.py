"""What a run will cost, and what its tenant's limits make of that, before it runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from .money import check_micros

DEFAULT: Final[Mapping[str, int]] = {"compute": 1_000}
"""What a node is expected to cost of which nothing is known, in micros by category. Said or not, it stands for: not declared."""

LEARNED_FROM: Final = 5
"""Executions of a task that its mean is taken from at least; a first one proves nothing."""

WINDOW: Final = 512
"""Executions that a mean goes back to; then all that is older counts half."""

Source = Literal["declared", "learned", "default"]
Means = Mapping[str, Mapping[str, int]]
"""Task to the mean of its executions, in micros by category."""


class Estimate(NamedTuple):
    """What an execution is expected to cost, in micros by category, and where that is known from."""

    cats: Mapping[str, int]
    source: Source

    @property
    def micros(self) -> int:
        """In all."""
        return sum(self.cats.values())


def estimate(declared: Mapping[Any, int], learned: Mapping[str, int] | None) -> Estimate:
    """Return the best that is known of an execution: declared, else learned, else the default."""
    if dict(declared) != DEFAULT:
        return Estimate(declared, "declared")
    return Estimate(declared, "default") if learned is None else Estimate(learned, "learned")


@dataclass(frozen=True)
class Learned:
    """What executions of one task cost so far: how many they were, and the sum of their micros by category."""

    count: int = 0
    sums: Mapping[str, int] | None = None

    def add(self, costs: Iterable[Mapping[str, int]]) -> Learned:
        """Return it with the costs of more executions, in micros by category."""
        count, sums = self.count, dict(self.sums or {})
        for cats in costs:
            if count >= WINDOW:
                count, sums = count // 2, {category: micros // 2 for category, micros in sums.items()}
            count += 1
            for category, micros in cats.items():
                sums[category] = sums.get(category, 0) + check_micros(micros, f"cost of {category}")
        return Learned(count, sums)

    def mean(self) -> dict[str, int] | None:
        """Return the mean by category, each rounded up, without zeroes; None from too few executions."""
        if self.count < LEARNED_FROM:
            return None
        return {category: -(-micros // self.count) for category, micros in sorted((self.sums or {}).items()) if micros}


@dataclass(frozen=True)
class Standing:
    """What a tenant's limits leave at a moment; amounts in micros.

    exposure_micros: settled, reserved and held; committed_micros without what is held.
    limit_month_micros: None where the month has no limit; month_exposure_micros, month_committed_micros: as those of the day.
    admit: full refuses a run that would have to be planned down. waiting: its runs in line. status: active, suspended or closed.
    """

    limit_micros: int
    exposure_micros: int
    running: int
    max_runs: int
    committed_micros: int = 0
    waiting: int = 0
    max_waiting: int = 1_000
    status: str = "active"
    on_runs_limit: Literal["hold", "reject"] = "hold"
    on_budget_limit: Literal["hold", "reject"] = "reject"
    limit_month_micros: int | None = None
    month_exposure_micros: int = 0
    month_committed_micros: int = 0
    admit: Literal["floor", "full"] = "floor"

    @property
    def room_micros(self) -> int:
        """What may be set aside yet, today and this month; never below 0."""
        day = self.limit_micros - self.exposure_micros
        month = day if self.limit_month_micros is None else self.limit_month_micros - self.month_exposure_micros
        return max(0, min(day, month))

    @property
    def binding(self) -> Literal["day", "month"]:
        """Which of the two limits leaves less."""
        if self.limit_month_micros is None:
            return "day"
        return "month" if self.limit_month_micros - self.month_exposure_micros < self.limit_micros - self.exposure_micros else "day"

    @property
    def is_spent(self) -> bool:
        """Whether a limit is committed to its end."""
        month = self.limit_month_micros
        return self.committed_micros >= self.limit_micros or (month is not None and self.month_committed_micros >= month)


class Prospect(NamedTuple):
    """What admission would say. `hold_micros` is what it would set aside, 0 where the run would not begin now."""

    decision: Literal["admitted", "planned_down", "held", "refused"]
    reason: str
    hold_micros: int = 0


def foresee(
    estimate_micros: int, floor_micros: int, standing: Standing, budget_micros: int | None = None, *, full: bool = False
) -> Prospect:
    """Return what the script `admit` would answer if the run came now and workers had room: the same tests in the same order.

    full: the run wants its whole estimate, as with `quality="full"`.
    """
    s = standing
    least, what = floor_micros, "its required nodes alone cost"
    if full or s.admit == "full":
        least, what = estimate_micros, "it wants its whole estimate, which is"
    if s.status != "active":
        return Prospect("refused", f"the tenant is {s.status}")
    if least > s.limit_micros:
        return Prospect("refused", f"{what} more than the whole limit of a day")
    if s.limit_month_micros is not None and least > s.limit_month_micros:
        return Prospect("refused", f"{what} more than the whole limit of a month")
    if budget_micros is not None and least > budget_micros:
        return Prospect("refused", f"{what} more than the budget given to it")
    if s.on_runs_limit == "reject" and s.running + s.waiting >= s.max_runs:
        return Prospect("refused", f"the tenant has {s.running + s.waiting} runs and may have {s.max_runs}")
    wait = ""
    if s.waiting:
        wait = f"{s.waiting} of the tenant's runs wait before it"
    elif s.running >= s.max_runs:
        wait = f"the tenant has {s.running} runs and may have {s.max_runs}"
    elif least > s.room_micros or s.is_spent:
        wait = f"{what} more than the {s.binding}'s limit leaves"
        if s.on_budget_limit == "reject":
            return Prospect("refused", wait)
    if wait and s.waiting >= s.max_waiting:
        return Prospect("refused", f"{s.waiting} of the tenant's runs wait, and no more may")
    if wait:
        return Prospect("held", wait)
    hold = min(estimate_micros, s.room_micros, estimate_micros if budget_micros is None else budget_micros)
    if hold < estimate_micros:
        return Prospect("planned_down", "what is optional or has cheaper variants is given up until it fits", hold)
    return Prospect("admitted", "everything fits", hold)
