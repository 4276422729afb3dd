"""A task that pays twice, and works in between."""

from __future__ import annotations

import time
from typing import Any

from orchestrator import meter, task


@task(name="midnight.pay", estimate={"llm": 1_000})
def pay(first: int, seconds: float, then: int, inputs: list[Any] | None = None) -> int:
    """Charge `first` micros, work, charge `then`; return both."""
    meter.charge("llm", first, "micros")
    time.sleep(seconds)
    meter.charge("llm", then, "micros")
    return first + then
