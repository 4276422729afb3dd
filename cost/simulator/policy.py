"""What a tenant is allowed to spend, and what happens at its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cost.money import check_micros


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of a tenant that money looks at.

    Limits are micros, None is no limit and 0 is a limit of nothing. Levels and `left_lower` are per cent of the limit,
    `concurrency` is per cent of `max_runs` or None for no degrading by concurrency. Raises ValueError for an amount out
    of range or thresholds out of order.
    """

    limit_day: int
    limit_month: int | None = None
    max_runs: int = 10
    suspended: bool = False
    admit: Literal["floor", "full"] = "floor"
    on_runs_limit: Literal["hold", "reject"] = "hold"
    on_budget_limit: Literal["reject", "hold"] = "reject"
    enforcement: Literal["enforce", "observe"] = "enforce"
    strict: bool = False
    levels: tuple[int, int, int] = (80, 90, 100)
    left_lower: int = 5
    concurrency: int | None = 80
    on_floor: Literal["terminate", "finish"] = "terminate"

    def __post_init__(self) -> None:
        check_micros(self.limit_day, "limit per day")
        if self.limit_month is not None:
            check_micros(self.limit_month, "limit per month")
        if self.max_runs < 1:
            raise ValueError(f"a tenant runs at least one run at a time, not {self.max_runs}")
        if list(self.levels) != sorted(set(self.levels)) or not 0 < self.left_lower < self.levels[0]:
            raise ValueError(f"levels rise and are left lower than they are entered: {self.levels}, {self.left_lower}")

    def limit(self, period: str) -> int | None:
        """Return the micros that a period allows: a day is "2026-01-31", a month "2026-01"."""
        return self.limit_day if len(period) == 10 else self.limit_month
