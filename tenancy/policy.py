"""A tenant's policy: the limits, shares and habits that it set or was given."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from tenancy.queues import POOL_PATTERN

MICROS_MAX = 2**53 - 1
"""Largest amount; Lua's numbers are doubles, exact to here."""

Micros = Annotated[int, Field(ge=0, le=MICROS_MAX, strict=True)]
Percent = Annotated[int, Field(ge=1, le=1000, strict=True)]
Count = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]
Flag = Annotated[bool, Field(strict=True)]

Action = Literal["notify", "hold", "suspend", "suspend_now"]
"""What a level brings about: notifications alone; new runs wait as well; or nothing starts any more, and what runs finishes."""

URL_CHARS_MAX = 2_000

ACTS = (
    "limit_per_day_micros",
    "limit_per_month_micros",
    "max_concurrent_runs",
    "max_waiting_runs",
    "submissions_per_minute",
    "max_running_nodes",
    "weight",
    "pool",
    "default_priority",
    "on_runs_limit",
    "on_budget_limit",
    "admit",
    "enforcement",
    "strict",
    "warn_percent",
    "critical_percent",
    "exceeded_percent",
    "on_warning",
    "on_critical",
    "on_exceeded",
    "degrade_budget_percent",
    "degrade_concurrency_percent",
    "on_floor",
    "webhook",
    "webhook_reports",
    "can_fork",
)
"""The fields that something reads; a tenant with another value in any other field is not accepted."""


def check_webhook(url: str) -> str:
    """Return the URL of a webhook. Raises ValueError for what is none, and for one with a password in it."""
    try:
        found = urlsplit(url)
        fits = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:
        fits = False
    if not fits or not url.isascii() or any(char <= " " for char in url):
        raise ValueError("write it as http://host/path or https://host/path")
    if found.username is not None or found.password is not None:
        raise ValueError("leave user and password out: what is sent is signed")
    return url


class Policy(BaseModel):
    """One version of a tenant's policy; a change makes the next version.

    Amounts are whole micros, levels are percent of the limit. Unknown fields are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit_per_day_micros: Micros = 1_000_000_000
    limit_per_month_micros: Micros | None = None
    max_concurrent_runs: Count = 10
    max_waiting_runs: Count = 1000
    submissions_per_minute: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    max_running_nodes: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    weight: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    pool: Annotated[str, Field(pattern=rf"^{POOL_PATTERN}$")] | None = None
    default_priority: Literal["CRITICAL", "HIGH", "NORMAL", "LOW", "BATCH"] = "NORMAL"
    warn_percent: Percent = 80
    critical_percent: Percent = 90
    exceeded_percent: Percent = 100
    on_warning: Action = "notify"
    on_critical: Action = "notify"
    on_exceeded: Action = "notify"
    degrade_budget_percent: Percent | None = 90
    degrade_concurrency_percent: Percent | None = 80
    on_floor: Literal["terminate", "hold", "finish"] = "terminate"
    webhook: Annotated[str, Field(max_length=URL_CHARS_MAX)] | None = None
    webhook_reports: Flag = False
    on_runs_limit: Literal["hold", "reject"] = "hold"
    on_budget_limit: Literal["hold", "reject"] = "reject"
    admit: Literal["floor", "full"] = "floor"
    enforcement: Literal["enforce", "observe", "off"] = "enforce"
    strict: Flag = False
    can_fork: Flag = False
    share_learning: Flag = False

    @field_validator("critical_percent", "exceeded_percent")
    @classmethod
    def _is_above(cls, value: int, info: ValidationInfo) -> int:
        below = "warn_percent" if info.field_name == "critical_percent" else "critical_percent"
        if value <= info.data.get(below, 0):
            raise ValueError(f"levels must rise, and {value} is not above {below}, which is {info.data[below]}")
        return value

    @field_validator("webhook")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        return None if value is None else check_webhook(value)

    def acting(self) -> dict[str, int | str | None]:
        """Return the fields that act, in the order of `ACTS`."""
        return {name: getattr(self, name) for name in ACTS}

    def not_yet(self) -> list[str]:
        """Return one sentence for each field that was set to something and would be ignored."""
        fields = type(self).model_fields.items()
        ignored = [name for name, field in fields if name not in ACTS and getattr(self, name) != field.default]
        return [f"the field {name!r} of a policy is not yet supported; leave it out" for name in ignored]

    def evolve(self, changes: Mapping[str, Any]) -> Self:
        """Return this policy with some fields changed; None clears a field that may be empty.

        Raises ValueError that says for each field what is wrong: there is none of that name, its value does not fit, or it would be
        ignored.
        """
        own = type(self).model_fields
        problems = [no_field(name) for name in changes if name not in own]
        evolved = self
        try:
            evolved = type(self).model_validate({**self.model_dump(), **{name: changes[name] for name in changes if name in own}})
        except ValidationError as error:
            problems += [f"{each['loc'][0]}: {each['msg'].removeprefix('Value error, ')}" for each in error.errors()]
        if problems := problems + evolved.not_yet():
            raise ValueError("; ".join(problems))
        return evolved

    def differs(self, other: Policy) -> dict[str, tuple[Any, Any]]:
        """Return (own value, the other's) of each field in which the other policy differs."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in Policy.model_fields}
        return {name: (own, its) for name, (own, its) in pairs.items() if own != its}


def no_field(name: str) -> str:
    """Return the sentence that tells of a field that no policy has, with the nearest one that acts."""
    nearest = difflib.get_close_matches(name, ACTS, n=1, cutoff=0.0)[0]
    return f"a policy has no field {name!r}; the nearest is {nearest!r}"
