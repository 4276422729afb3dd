"""More workers for a stack that runs, each with a pool of its own; and what ran side by side, from the tasks' own notes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from running import Running, until

from orchestrator.embedded.stack import child_environment

TASKS = "slot_tasks"
FLAGS = ("--prefetch-multiplier=1", "--without-gossip", "--without-mingle", "--loglevel=INFO")


class Span(NamedTuple):
    """When a task ran (seconds, of one clock for all processes), and in which process."""

    started: float
    ended: float
    pid: int


@contextmanager
def worker(stack: Running, name: str, *options: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A worker beside those of the stack, ready when it is given out; options are Celery's, settings by field name."""
    given = stack.stack.settings.environment(redis_url=stack.stack.redis_url, tasks=stack.stack.tasks, **settings)
    command = [sys.executable, "-P", "-m", "celery", "-A", "orchestrator.app", "worker", "-n", f"{name}@%h", *options, *FLAGS]
    log = stack.stack.log_dir / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=child_environment(os.environ, given), stdout=out, stderr=out, cwd=log.parent, start_new_session=True
        )
    try:
        serves_pools = not options or "-Q" not in options or "pool." in options[options.index("-Q") + 1]
        until(lambda: process.poll() is not None or (name in workers(stack) if serves_pools else " ready." in log.read_text()), 30)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and its pool."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def workers(stack: Running) -> dict[str, dict[str, Any]]:
    """What each live worker says of itself, by the first part of its name."""
    texts = [stack.redis.hget(f"hg1:worker:{inc}", "info") for inc in stack.redis.zrange("hg1:incarnations", 0, -1)]
    infos = [json.loads(text) for text in texts if text]
    return {info["name"].split("@")[0]: info for info in infos}


def spans(log: Path) -> list[Span]:
    """What the tasks wrote down, by start."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return sorted(Span(float(started), float(ended), int(pid)) for started, ended, pid in lines)


def most_at_once(found: list[Span]) -> int:
    """How many ran side by side at most; one that ends when another starts is not beside it."""
    changes = sorted([*((span.started, 1) for span in found), *((span.ended, -1) for span in found)])
    most = running = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most
