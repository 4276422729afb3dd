"""A task whose own code uses OpenTelemetry, as a user's module would have it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from opentelemetry import trace

from orchestrator import task


@task
def where() -> list[str]:
    """The trace and the span that this code runs in."""
    context = trace.get_current_span().get_span_context()
    return [f"{context.trace_id:032x}", f"{context.span_id:016x}"]


@task
def killed_once(path: str) -> str:
    """Dies of a SIGKILL at its first attempt."""
    if not Path(path).exists():
        Path(path).write_text("was here")
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@task
def waits(path: str) -> str:
    """Waits until there is a file."""
    while not Path(path).exists():
        time.sleep(0.02)
    return "done"
