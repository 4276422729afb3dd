"""Exit codes: what a script learns from a command without reading what it printed."""

from __future__ import annotations

from enum import IntEnum

from tenancy.errors import BudgetRefused, HeadgateError, QueueFull, Rate, RunFailed, RunsLimit, Unavailable, WaitTimeout


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    """The run ended without succeeding."""
    USAGE = 2
    """What was asked for cannot be: an unknown option, run or tenant, or a graph with problems."""
    CANCELLED = 3
    REFUSED = 4
    """The budget, or another limit of the tenant, stood in the way; also of a run that its cost ended."""
    UNAVAILABLE = 69
    """A service is missing: no stack runs, or no worker serves a task."""
    TIMEOUT = 124
    """The waiting ended, the run did not."""
    DETACHED = 130
    """Ctrl-C: the watching ended, the run did not."""


def of_run(status: str, outcome: str | None) -> Exit:
    """Return the exit code that tells how a run ended."""
    if outcome in ("succeeded", "degraded"):
        return Exit.OK
    if outcome == "cancelled":
        return Exit.CANCELLED
    if status == "refused" or outcome == "terminated_by_cost":
        return Exit.REFUSED
    return Exit.FAILED


def of_error(error: HeadgateError) -> Exit:
    """Return the exit code that tells what kind of error this is; USAGE where waiting or starting something does not help."""
    if isinstance(error, (BudgetRefused, RunsLimit, Rate)):
        return Exit.REFUSED
    if isinstance(error, (Unavailable, QueueFull)):
        return Exit.UNAVAILABLE
    if isinstance(error, RunFailed):
        return Exit.FAILED
    if isinstance(error, WaitTimeout):
        return Exit.TIMEOUT
    return Exit.USAGE
