"""Beats of a test's own beside a stack that has none, each with a clock of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from running import let_go, producer

from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.settings import Settings

HERE = Path(__file__).resolve().parent


class Beats:
    """A stack without a beat of its own, and beats that are off by some seconds."""

    def __init__(self, stack: Stack, client: Client, home: Path) -> None:
        self.stack, self.client, self.home = stack, client, home
        self.processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    @contextmanager
    def beside(cls, workers: int, slots: int, tasks: Sequence[str] = (), **settings: Any) -> Iterator[Self]:
        """A stack with these settings for as long as the context lasts, and no beat yet."""
        home = Path(tempfile.mkdtemp(prefix="hg"))
        try:
            with Stack(Settings(home=home, **settings), workers, slots, tasks, beat=False, console=False) as stack:
                client = producer(Settings(home=home, redis_url=stack.redis_url, tasks=tuple(tasks), **settings))
                made = cls(stack, client, home)
                try:
                    yield made
                finally:
                    made.close()
                    let_go(client)
        finally:
            Settings.forget()
            shutil.rmtree(home, ignore_errors=True)

    def start(self, ahead_s: int) -> subprocess.Popen[bytes]:
        """Start a beat whose clock is so many seconds ahead (behind: less than 0)."""
        place = self.home / f"beat{ahead_s}"
        environment = {
            **os.environ,
            **self.client.settings.environment(),
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
        }
        argv = [sys.executable, str(HERE / "skewed_beat.py"), str(ahead_s), f"{place}.db", f"{place}.pid"]
        with Path(f"{place}.log").open("wb") as out:
            self.processes.append(subprocess.Popen(argv, env=environment, stdout=out, stderr=out, cwd=self.home))
        return self.processes[-1]

    def close(self) -> None:
        """End those that still run."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)
