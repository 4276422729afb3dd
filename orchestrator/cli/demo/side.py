"""A side: one platform on the join night, ours or stock Celery, seen the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class View:
    """How far a side is. Times are epoch seconds.

    running: for each worker (from 1) the members that it holds, with the time at which they began. joined_at: when the join began.
    """

    done: int
    running: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    joined_at: float | None = None


class Side(Protocol):
    """What can be done with a platform on the join night."""

    name: str

    def submit(self, members: int, seconds: float) -> None:
        """Publish `members` tasks that sleep for `seconds` each, and their join."""

    def look(self, now: float) -> View:
        """Return how far it is."""

    def kill(self, worker: int) -> int:
        """Kill a worker with its pool by SIGKILL, start another one in its place, and return the pid of the dead."""


def worker_of(hostname: str) -> int:
    """Return the number of a worker from its Celery name: 2 for "w2@host"."""
    return int(hostname.partition("@")[0].removeprefix("w"))


def victim(view: View, now: float, age_max_s: float) -> int | None:
    """Return the worker that holds the most members begun less than `age_max_s` ago, so that they are certain to die with it.

    None if no worker holds one. Of equals it is worker 2, since that is no worker's first and no worker's last, else the first.
    """
    fresh = {worker: sum(now - began < age_max_s for began in members.values()) for worker, members in view.running.items()}
    most = max(fresh.values(), default=0)
    if most == 0:
        return None
    return min((worker for worker, count in fresh.items() if count == most), key=lambda worker: (worker != 2, worker))
