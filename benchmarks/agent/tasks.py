"""The work of the load: it takes some time, and costs what it is told, whatever it was estimated at."""

from __future__ import annotations

import time
from typing import Any

from cost.meter import meter
from orchestrator.building import task


@task(name="bench.agent.work", estimate={"llm": 1_000})
def work(micros: int, seconds: float, inputs: list[Any] | None = None) -> int:  # noqa: ARG001 - `inputs` makes edges
    """Charge `micros` of llm in four pieces over `seconds`, as a model that streams its answer; return them."""
    for piece in range(4):
        meter.charge("llm", micros * (piece + 1) // 4 - micros * piece // 4, "micros")
        time.sleep(seconds / 4)
    return micros
