"""The task that is tortured. A file that outlives whoever is killed gets a line when an execution begins, and one when it ends."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import current_task

from orchestrator.building import task

LOG = "TORTURE_LOG"
"""Environment: the file."""


@task(name="torture.work", estimate={"compute": 1})
def work(payload: str = "", seconds: float = 0.05, inputs: list[Any] | None = None) -> None:  # noqa: ARG001 (inputs make edges)
    """Take `seconds`. A node is called by its run and id, an ordinary message by its payload."""
    request = current_task.request
    node = getattr(request, "headgate", None)
    name = f"{node[0]}.{node[2]}" if node else payload
    inc, tag, number = request.headgate_delivery
    _write(what="began", id=name, inc=inc, tag=tag, number=number, pid=os.getpid())
    time.sleep(seconds)
    _write(what="ended", id=name, inc=inc, tag=tag, number=number, pid=os.getpid())


def _write(**line: Any) -> None:
    # One write of less than a page to a file opened for appending: lines of several processes do not mix.
    with open(os.environ[LOG], "ab", buffering=0) as log:  # noqa: PTH123
        log.write(json.dumps({"at": time.time_ns() // 1_000_000, **line}).encode() + b"\n")
