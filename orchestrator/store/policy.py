"""A tenant's policy: the limits, shares and habits that it set or was given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MICROS_MAX = 2**53 - 1
"""Largest amount; Lua's numbers are doubles, exact to here."""

Micros = Annotated[int, Field(ge=0, le=MICROS_MAX, strict=True)]
Percent = Annotated[int, Field(ge=0, le=1000, strict=True)]
Count = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]
Flag = Annotated[bool, Field(strict=True)]

ACTS = ("limit_per_day_micros", "max_concurrent_runs", "max_running_nodes", "weight")
"""The fields that something reads; a tenant with another value in any other field is not accepted."""


class Policy(BaseModel):
    """One version of a tenant's policy; a change makes the next version.

    Amounts are whole micros, levels are percent of the limit. Unknown fields are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit_per_day_micros: Micros = 1_000_000_000
    limit_per_month_micros: Micros | None = None
    max_concurrent_runs: Count = 10
    max_running_nodes: Annotated[int, Field(ge=1, strict=True)] | None = None
    weight: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    default_priority: Literal["CRITICAL", "HIGH", "NORMAL", "LOW", "BATCH"] = "NORMAL"
    warn_percent: Percent = 80
    critical_percent: Percent = 90
    exceeded_percent: Percent = 100
    on_runs_limit: Literal["hold", "reject"] = "hold"
    on_budget_limit: Literal["hold", "reject"] = "reject"
    admit: Literal["floor", "full"] = "floor"
    enforcement: Literal["enforce", "observe", "off"] = "enforce"
    strict: Flag = False
    can_fork: Flag = False
    share_learning: Flag = False

    def acting(self) -> dict[str, int | None]:
        """Return the fields that act, in the order of `ACTS`."""
        return {name: getattr(self, name) for name in ACTS}

    def not_yet(self) -> list[str]:
        """Return one sentence for each field that was set to something and would be ignored."""
        fields = type(self).model_fields.items()
        ignored = [name for name, field in fields if name not in ACTS and getattr(self, name) != field.default]
        return [f"the field {name!r} of a policy is not yet supported; leave it out" for name in ignored]
