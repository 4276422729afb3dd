"""`headgate up`: a stack in the foreground, until a signal ends it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from types import FrameType

from orchestrator.embedded.commands import Commands
from orchestrator.embedded.readiness import kernel_ready
from orchestrator.embedded.stack import Interrupted, Ready, Stack
from orchestrator.redaction import redacted_text
from orchestrator.settings import Settings

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_up(
    settings: Settings,
    workers: int,
    tasks: Iterable[str],
    reload: bool,
    echo: Callable[[str], None],
    *,
    progress: Callable[[str], None] | None = None,
    concurrency: int = 2,
    ready: Ready = kernel_ready,
    commands: Commands | None = None,
) -> None:
    """Run a stack until SIGINT, SIGTERM or SIGHUP, then stop all of it; a second signal does not wait for running tasks.

    To be called from the main thread. `echo` is told where everything is, and what happens; `progress`, which is `echo`
    unless given, that it is ready. Raises Unavailable as Stack.
    """
    stack = Stack(settings, workers, concurrency, tasks, reload=reload, report=echo, ready=ready, commands=commands)

    def end(_number: int, _frame: FrameType | None) -> None:
        if stack.interrupt.is_set():
            stack.hurry.set()
        stack.interrupt.set()

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        with stack:
            for line in whereabouts(stack):
                echo(line)
            (progress or echo)("ready; Ctrl-C stops it")
            stack.interrupt.wait()
            echo("stopping (again to stop at once)")
        echo("stopped")
    except Interrupted:
        echo("stopped before it was ready")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def whereabouts(stack: Stack) -> list[str]:
    """Return one line for each place of a stack that runs."""
    pids = ", ".join(f"{name} {pid}" for name, pid in stack.pids().items())
    places = {
        "home": str(stack.home),
        "redis": redacted_text(stack.redis_url),
        "database": redacted_text(stack.settings.resolved_database_url()),
        "console": stack.console_url or "none",
        "logs": str(stack.log_dir),
        "pids": pids,
    }
    return [f"{name:9} {place}" for name, place in places.items()]
