"""Ordinary Celery tasks, as a project has them that knows nothing of graphs; they write down when they ran."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from celery import current_task, shared_task

NOTES = "POOL_NOTES"
"""Environment: the file of notes."""


@shared_task(name="pools.note")
def note(label: str, seconds: float = 0.0) -> None:
    """Take `seconds`, with a line when it begins and one when it ends."""
    _write("began", label)
    time.sleep(seconds)
    _write("ended", label)


def _write(what: str, label: str) -> None:
    request = current_task.request
    line = {
        "what": what,
        "label": label,
        "at": time.time(),
        "pid": os.getpid(),
        "worker": request.hostname,
        "again": bool(getattr(request, "redelivered", False)),
    }
    # One short write to a file opened for appending: lines of several processes do not mix.
    with Path(os.environ[NOTES]).open("ab", buffering=0) as notes:
        notes.write(json.dumps(line).encode() + b"\n")
