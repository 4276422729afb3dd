"""Named points: a process dies before or after it does a certain thing, the next time that it comes there.

A point is armed by a file `{role}.{name}.{when}` in a directory; who comes there first takes the file, leaves a note of it, and
dies. The names are those of the scripts, `publish` of messages, and `commit` of the recorder. Nothing of this is in the product: it is
wrapped around it here, in the processes of a seed alone.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from billiard.process import current_process

from orchestrator import canvas
from tenancy.link import Link

DIRECTORY = "CHAOS_POINTS"
"""The environment variable that says where the files are."""

OFTEN = ("begin", "finish", "settle", "publish", "ack", "pop")
SOMETIMES = ("cascade", "stale", "revoke", "beat", "put", "reclaim", "let_in")
POINTS = {
    "worker": (*OFTEN, *OFTEN, *SOMETIMES),
    "producer": ("log", "admit", "load", "launch", "publish"),
    "recorder": ("commit",),
}
"""By role: where it dies, the usual points twice as often."""


class ProducerDied(BaseException):
    """A producer is no more: none of its own handlers sees this."""


@dataclass(frozen=True)
class Points:
    """The points of one role, in a process that has it."""

    role: str
    directory: Path
    die: Callable[[], None]
    has_role: Callable[[], bool] = lambda: True

    def around(self, name: str, do: Callable[[], Any]) -> Any:
        """Do something; die before or after it, where that is armed."""
        self.reach(name, "before")
        done = do()
        self.reach(name, "after")
        return done

    def reach(self, name: str, when: str) -> None:
        """Die if the point is armed, and nobody was here before."""
        armed = self.directory / f"{self.role}.{name}.{when}"
        if not self.has_role():
            return
        try:
            armed.rename(armed.with_name(f"{armed.name}@{worker_pid()}@{time.time_ns() // 1_000_000}"))
        except FileNotFoundError:
            return
        self.die()

    def install(self) -> None:
        """Wrap the scripts and the publishing of this process."""
        batch, publish = Link.batch, canvas.publish

        @functools.wraps(batch)
        def batch_at_points(link: Link, calls: Any) -> Any:
            names = dict.fromkeys(name.rpartition("/")[2] for name, _ in calls)
            for name in names:
                self.reach(name, "before")
            replies = batch(link, calls)
            for name in names:
                self.reach(name, "after")
            return replies

        @functools.wraps(publish)
        def publish_at_points(*args: Any) -> Any:
            return self.around("publish", lambda: publish(*args))

        Link.batch = batch_at_points  # type: ignore[method-assign]
        canvas.publish = publish_at_points


def arm(directory: Path, role: str, name: str, when: str) -> None:
    """Have the next process of that role die there."""
    (directory / f"{role}.{name}.{when}").touch()


def reached(directory: Path) -> list[tuple[str, int, int]]:
    """Return the points where somebody died: name, process id (of a pool's process its worker's), epoch milliseconds."""
    notes = [file.name.rsplit("@", 2) for file in directory.iterdir() if "@" in file.name]
    return sorted(((name, int(pid), int(at)) for name, pid, at in notes), key=lambda note: note[2])


def worker_pid() -> int:
    """The process that an incarnation is named after: the worker's, also in a process of its pool."""
    return os.getpid() if current_process().name == "MainProcess" else os.getppid()


def kill_self() -> None:
    """SIGKILL, as from outside."""
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()


def die_as_producer() -> None:
    """End the thread that plays a producer."""
    raise ProducerDied


def of_environment(role: str) -> Points:
    """Return the points of a child of the stack."""
    return Points(role, Path(os.environ[DIRECTORY]), kill_self)
