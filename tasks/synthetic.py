"""Synthetic load: tasks that wait, burn, fail, spend or emit as much as they are told, for tests, benchmarks and dry runs.

All take `inputs`, which they ignore: references given there make edges.
"""

# ruff: noqa: ARG001 - `inputs` is there for the edges that it makes

from __future__ import annotations

import math
import time
from typing import Any, Final

from cost.meter import meter
from orchestrator.building import task

SECONDS_MAX: Final = 86_400.0
BYTES_MAX: Final = 10_000_000


@task(name="synthetic.noop", estimate={"compute": 1})
def noop(inputs: list[Any] | None = None) -> None:
    """Do nothing."""


@task(name="synthetic.sleep", estimate={"compute": 1})
def sleep(seconds: float, inputs: list[Any] | None = None) -> None:
    """Wait for `seconds` (0 to 86,400) without using a CPU. Raises ValueError outside that range."""
    time.sleep(_checked(seconds))


@task(name="synthetic.burn", estimate={"compute": 1_000})
def burn(seconds: float, inputs: list[Any] | None = None) -> None:
    """Use `seconds` of CPU time (0 to 86,400) in this thread. Raises ValueError outside that range."""
    until = time.thread_time() + _checked(seconds)
    while time.thread_time() < until:
        sum(range(1000))


@task(name="synthetic.fail", estimate={"compute": 1})
def fail(times: int = 1, inputs: list[Any] | None = None) -> int:
    """Raise RuntimeError in the first `times` attempts, then return the number of the attempt."""
    if meter.attempt <= times:
        raise RuntimeError(f"attempt {meter.attempt} fails, as asked; the first {times} do")
    return meter.attempt


@task(name="synthetic.spend", estimate={"other": 1_000})
def spend(category: str = "other", micros: int = 1_000, inputs: list[Any] | None = None) -> int:
    """Charge `micros` (0 to 2^53-1) under `category` and return them."""
    meter.charge(category, micros, "micros")
    return micros


@task(name="synthetic.emit", estimate={"compute": 1})
def emit(bytes: int = 0, inputs: list[Any] | None = None) -> str:  # noqa: A002 - the unit is the clearest name in a graph file
    """Return a text of `bytes` bytes (0 to 10,000,000). Raises ValueError outside that range."""
    if not 0 <= bytes <= BYTES_MAX:
        raise ValueError(f"bytes must be from 0 to {BYTES_MAX}, and is {bytes}")
    return "x" * bytes


def _checked(seconds: float) -> float:
    if not (math.isfinite(seconds) and 0 <= seconds <= SECONDS_MAX):
        raise ValueError(f"seconds must be from 0 to {SECONDS_MAX:.0f}, and is {seconds}")
    return seconds
