"""Refusals in words: which limit said no, with the numbers, and what helps."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.submission import Submission
from tenancy.errors import BudgetRefused, QueueFull, Rate, Refused, RunsLimit
from tenancy.queues import TENANT_PATTERN


def refusal(tenant: str, submission: Submission, reason: str, limit: str, current: str, retry_after_ms: str = "") -> Refused:
    """Return the error that says why `admit` refused a run, with the numbers and the remedy."""
    needs = f"its required nodes alone cost {submission.floor_micros} micros, and the whole run {submission.estimate_micros}"
    numbers = _numbers(limit, current, retry_after_ms)
    if reason == "budget":
        return BudgetRefused(
            f"tenant {tenant!r} has {current} of {limit} micros spent or set aside, of its day or its month, and {needs}; "
            "raise limit_per_day_micros or limit_per_month_micros, or wait until the day or the month (UTC) is over",
            **numbers,
        )
    if reason == "run_budget":
        return BudgetRefused(f"the budget of {limit} micros does not cover the run: {needs}", **numbers)
    if reason == "runs":
        taken = f"tenant {tenant!r} has {current} runs and may have {limit}"
        return RunsLimit(f"{taken}; try again in {_wait(numbers)}, when one is likely to have ended", **numbers)
    if reason in ("queue", "rate"):
        return turned_away(tenant, reason, limit, current, retry_after_ms)
    if reason in ("suspended", "closed"):
        return Refused(f"tenant {tenant!r} is not active: it is {reason}")
    return Refused(no_tenant(tenant))


def turned_away(tenant: str, reason: str, limit: str, current: str, retry_after_ms: str) -> Refused:
    """Return the error that says why `knock` let nobody through: too many wait, or they come too fast."""
    numbers = _numbers(limit, current, retry_after_ms)
    if reason == "rate":
        rate = f"tenant {tenant!r} may submit {limit} runs a minute, a tenth of them at once, and did {current} in the last one"
        return Rate(f"{rate}; try again in {_wait(numbers)}", **numbers)
    return QueueFull(f"tenant {tenant!r} has {current} waiting runs and may have {limit}; try again in {_wait(numbers)}", **numbers)


def _numbers(limit: str, current: str, retry_after_ms: str) -> dict[str, Any]:
    return {
        "limit": int(limit) if limit else None,
        "current": int(current) if current else None,
        "retry_after_s": int(retry_after_ms) / 1000 if retry_after_ms else None,
    }


def _wait(numbers: dict[str, Any]) -> str:
    return f"{numbers['retry_after_s'] or 1:g} s"


def no_tenant(tenant: str) -> str:
    """Return the sentence for a tenant that there is not; with the remedy, where it could be one's id."""
    remedy = f"; create it with `headgate tenant create {tenant}`" if re.fullmatch(TENANT_PATTERN, tenant) else ""
    return f"there is no tenant {tenant!r}{remedy}"
