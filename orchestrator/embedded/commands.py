"""The argument lists of the stack's children."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tenancy.queues import SYSTEM_QUEUE

# -P: the working directory is a user's, and a celery.py or redis.py there must not stand in for the real one.
_PYTHON = (sys.executable, "-P", "-m")
# Quiet: without a banner, every line of a log is a line of its format.
_CELERY = (*_PYTHON, "celery", "--quiet", "-A", "orchestrator.app")
# One message in hand per process: what waits stays in Redis, where fairness, cancel and priorities reach it.
_WORKER = ("--prefetch-multiplier=1", "--without-gossip", "--without-mingle", "--loglevel=INFO")


def recorder() -> tuple[str, ...]:
    """Return the command of the recorder."""
    return (*_PYTHON, "orchestrator.recorder")


def worker(index: int, concurrency: int) -> tuple[str, ...]:
    """Return the command of worker `index` (from 1) with `concurrency` processes."""
    return (*_CELERY, "worker", "-n", f"w{index}@%h", "-c", str(concurrency), *_WORKER)


def system() -> tuple[str, ...]:
    """Return the command of the worker that does beat's work alone, so that no node keeps it waiting; three at once, two may be slow."""
    return (*_CELERY, "worker", "-n", "system@%h", "-P", "threads", "-c", "3", "-Q", SYSTEM_QUEUE, *_WORKER)


def beat(schedule: Path) -> tuple[str, ...]:
    """Return the command of beat, which remembers its schedule in the file `schedule`."""
    return (*_CELERY, "beat", "--schedule", str(schedule), "--loglevel=INFO")


def console(port: int) -> tuple[str, ...]:
    """Return the command of Flower, on the loopback interface only."""
    return (*_CELERY, "flower", f"--port={port}", "--address=127.0.0.1")


@dataclass(frozen=True)
class Commands:
    """The argument lists that a stack runs; the defaults are the real ones."""

    recorder: Callable[[], tuple[str, ...]] = recorder
    worker: Callable[[int, int], tuple[str, ...]] = worker
    system: Callable[[], tuple[str, ...]] = system
    beat: Callable[[Path], tuple[str, ...]] = beat
    console: Callable[[int], tuple[str, ...]] = console
