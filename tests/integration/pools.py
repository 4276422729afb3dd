"""Three workers on one stack, each with another kind of pool, and what their tasks wrote down."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import redis
from running import until

from orchestrator.client import Client
from orchestrator.embedded import Stack, commands
from tenancy.link import Link
from tenancy.transport.queue import Queue

KINDS = ("prefork", "threads", "solo")
"""Worker 1, 2 and 3; each serves the pool of its kind, the first one also ordinary queues."""
SLOTS = {"prefork": 2, "threads": 2, "solo": 1}
TASK = "pools.note"


class Note(NamedTuple):
    """One line of a task."""

    what: str
    label: str
    at: float
    pid: int
    worker: str
    again: bool


def read_notes(file: Path) -> list[Note]:
    """Everything that was written so far; the last line may be half written."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [Note(**json.loads(line)) for line in lines if line.endswith("\n")]


def command(index: int, concurrency: int) -> tuple[str, ...]:
    """The stack's own command, with a pool and queues of its own, and events."""
    kind = KINDS[index - 1]
    queues = f"pool.{kind}" + (",pool.default,system,other" if kind == "prefork" else "")
    return (*commands.worker(index, concurrency), "-P", kind, "-Q", queues, "-E")


@dataclass(frozen=True)
class Pools:
    """The stack with a client, a plain connection to its Redis, and the file of notes."""

    stack: Stack
    client: Client
    redis: redis.Redis
    file: Path

    @property
    def app(self) -> Any:
        return self.client.kernel.app

    @property
    def queue(self) -> Queue:
        return Queue(Link(self.stack.client_url))

    def worker(self, kind: str) -> str:
        """The name of the worker with this kind of pool."""
        return f"w{1 + KINDS.index(kind)}@{socket.gethostname()}"

    def send(self, label: str, seconds: float = 0.0, *, tenant: str = "default", pool: str = "", **options: Any) -> str:
        """Publish one ordinary task; returns its id."""
        headers = {"tenant": tenant, "expected_ms": max(1, int(1000 * seconds)), **({"pool": pool} if pool else {})}
        return str(self.app.send_task(TASK, args=[label, seconds], headers=headers, ignore_result=True, **options).id)

    def notes(self, labels: Iterable[str], what: str = "began") -> list[Note]:
        """Notes of these labels, in their order."""
        wanted = set(labels)
        return [note for note in read_notes(self.file) if note.label in wanted and note.what == what]

    def until_ended(self, labels: Iterable[str], timeout_s: float = 30.0) -> list[Note]:
        """Wait until each label was executed to its end; return the beginnings."""
        wanted = set(labels)
        until(lambda: {note.label for note in self.notes(wanted, "ended")} == wanted, timeout_s)
        return self.notes(wanted)

    def until_quiet(self) -> None:
        """Wait until no message is left, waiting or held."""
        until(lambda: not self.redis.hlen("hg1:msg") and not list(self.redis.scan_iter("hg1:held:*")))
