"""Tasks for workers that are told to end: nodes that nap, and an ordinary Celery task that leaves a mark each time it runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

from orchestrator import task

MARKS = "TESTS_MARKS"
"""Names, in the environment, the directory of the marks."""


@task
def nap(s: float = 0.0) -> float:
    time.sleep(s)
    return s


theirs = Celery("theirs", set_as_current=False)


@theirs.task(name="winding.mark")
def mark(name: str, s: float = 0.0) -> None:
    time.sleep(s)
    with (Path(os.environ[MARKS]) / name).open("a") as file:
        file.write("x")


adopted = task.adopt(mark)
