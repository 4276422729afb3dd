"""The task of the trials: a file that outlives whoever is killed gets a line when an execution begins."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from cost.meter import meter
from orchestrator.building import task

LOG = "STOPS_LOG"
"""Environment: the file."""


@task(name="stops.work", estimate={"compute": 1})
def work(seconds: float = 0.02, inputs: list[Any] | None = None) -> None:  # noqa: ARG001 (inputs make edges)
    """Take `seconds`, unless it is told to stop."""
    with open(os.environ[LOG], "ab", buffering=0) as log:  # noqa: PTH123 (one write of a line: lines of several processes do not mix)
        log.write(json.dumps([meter.idempotency_key, meter.attempt]).encode() + b"\n")
    until = time.monotonic() + seconds
    while time.monotonic() < until and not meter.cancelled():
        time.sleep(0.01)
