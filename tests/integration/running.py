"""A running stack as tests hold it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import redis

from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.handle import RunHandle
from orchestrator.settings import Settings

WORKERS, SLOTS = 2, 2
CELERY_WORKERS = WORKERS + 1
"""All that answer Celery's remote control: those that run nodes, and the one for what beat asks for."""


@dataclass(frozen=True)
class Running:
    """A running stack, with a client and a plain connection to its Redis."""

    stack: Stack
    client: Client
    redis: redis.Redis

    @property
    def app(self) -> Any:
        """The Celery app of this process, as a producer has it."""
        return self.client.kernel.app

    def pool_pids(self) -> set[int]:
        """The processes that run tasks at this moment."""
        workers = [pid for name, pid in self.stack.pids().items() if name.startswith("w")]
        return {child.pid for pid in workers for child in psutil.Process(pid).children()}

    def keys_of(self, run_id: str) -> list[str]:
        """The keys that name a run."""
        return sorted(self.redis.scan_iter(f"hg1:*{run_id}*", count=1000))


def producer(settings: Settings) -> Client:
    """A client of the stack that `settings` lead to."""
    client = Client(settings)
    assert client.kernel.launcher
    assert client.engine
    return client


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Return what `condition` gives once it is true; fails after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
    return found


def by_id(run: RunHandle) -> dict[str, dict[str, Any]]:
    """The nodes of a run, as `show --json` has them."""
    return {node["id"]: node for node in run.nodes}


def let_go(client: Client) -> None:
    """Close what a client has open."""
    client.engine.dispose()
    client.kernel.link.close()
    client.kernel.app.close()
