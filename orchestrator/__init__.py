"""Orchestrator runs: graphs are compiled, launched on Celery, gated, finished and recorded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cost.meter import meter
    from orchestrator.attempts import Fatal, Retryable
    from orchestrator.building import dag, equals, item, not_equals, one_of, task, with_default
    from orchestrator.client import Client
    from orchestrator.graph import Graph
    from orchestrator.limit import Limit
    from orchestrator.ordinary import install
    from tenancy.errors import (
        BudgetRefused,
        Conflict,
        GraphInvalid,
        HeadgateError,
        QueueFull,
        Rate,
        Refused,
        RunFailed,
        RunsLimit,
        Unavailable,
        Unknown,
        WaitTimeout,
    )
    from tenancy.priorities import Priority

__all__ = [
    "BudgetRefused",
    "Client",
    "Conflict",
    "Fatal",
    "Graph",
    "GraphInvalid",
    "HeadgateError",
    "Limit",
    "Priority",
    "QueueFull",
    "Rate",
    "Refused",
    "Retryable",
    "RunFailed",
    "RunsLimit",
    "Unavailable",
    "Unknown",
    "WaitTimeout",
    "dag",
    "equals",
    "install",
    "item",
    "meter",
    "not_equals",
    "one_of",
    "task",
    "with_default",
]

# Looked up at first use: a worker's child, the command line and a user's import need different halves of this.
_HOMES = {
    "Client": "orchestrator.client",
    "Fatal": "orchestrator.attempts",
    "Graph": "orchestrator.graph",
    "Limit": "orchestrator.limit",
    "Priority": "tenancy.priorities",
    "Retryable": "orchestrator.attempts",
    "dag": "orchestrator.building",
    "equals": "orchestrator.building",
    "install": "orchestrator.ordinary",
    "item": "orchestrator.building",
    "meter": "cost.meter",
    "not_equals": "orchestrator.building",
    "one_of": "orchestrator.building",
    "task": "orchestrator.building",
    "with_default": "orchestrator.building",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES.get(name, "tenancy.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
