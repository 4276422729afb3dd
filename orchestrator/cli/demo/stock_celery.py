"""Stock Celery's side of the nights: its own workers, on another database of the same Redis server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from orchestrator.embedded import RedisServer
from orchestrator.embedded.child import Child, Program
from orchestrator.embedded.stack import child_environment
from orchestrator.embedded.tether import Tether
from tenancy.errors import Unavailable

from .side import View, worker_of

PEER = Path(__file__).resolve().parent / "peer"
DATABASE = 1
READY_S = 30.0


class StockCelery:
    """Plain Celery workers with a chord or a flood to work on; made by `running`."""

    name = "stock Celery"

    def __init__(self, workers: list[Child], environment: dict[str, str], connection: redis.Redis) -> None:
        self._workers = workers
        self._environment = environment
        self._connection = connection
        self._members: list[str] = []
        self._join = ""
        self._seen: dict[str, float] = {}
        self.visibility_timeout_s = 0.0
        """What its transport waits before it gives a dead worker's messages to another, as it says itself."""

    @classmethod
    @contextmanager
    def running(cls, server: RedisServer, workers: int, slots: int, log_dir: Path) -> Iterator[StockCelery]:
        """Start `workers` of `slots` processes each, and kill all of them in the end. Raises Unavailable if one does not get ready."""
        url = f"redis+socket://{server.socket}?virtual_host={DATABASE}"
        environment = child_environment(os.environ, {"STOCK_REDIS_URL": url})
        tether = Tether()
        children = [
            Child(Program(f"stock-w{index}", command(index, slots), environment, log_dir / f"stock-w{index}.log"), tether)
            for index in range(1, workers + 1)
        ]
        try:
            for child in children:
                child.start()
            _await_ready(children)
            with redis.Redis(unix_socket_path=str(server.socket), db=DATABASE, decode_responses=True) as connection:
                yield cls(children, environment, connection)
        finally:
            for child in children:
                child.retired = True
                child.kill()
                if child.pid is not None:
                    child.bury(time.monotonic())
            tether.close()

    def submit(self, members: int, seconds: float) -> None:
        found = self._publish("chord", members, seconds)
        self._members, self._join, self.visibility_timeout_s = found["members"], found["join"], float(found["visibility_timeout_s"])

    def submit_flood(self, count: int, seconds: float) -> float:
        """Publish `count` tasks that sleep for `seconds` each, then one more; return when that one was in line (epoch seconds)."""
        found = self._publish("flood", count, seconds)
        self._members, self._join = found["flood"], found["one"]
        return float(found["queued_at"])

    def look_at_flood(self) -> tuple[list[float], float | None]:
        """Return when the tasks of the flood ended, as far as they have, and when the one began; epoch seconds."""
        metas = [self._read(meta) for meta in self._connection.mget([f"celery-task-meta-{each}" for each in (*self._members, self._join)])]
        one = metas.pop()
        ended = [when for meta in metas if (when := _date_done(meta)) is not None]
        return ended, float(one["result"]) if one.get("status") == "SUCCESS" else None

    def _publish(self, what: str, count: int, seconds: float) -> dict[str, Any]:
        argv = [sys.executable, "-P", str(PEER / "stock_app.py"), what, str(count), str(seconds)]
        said = subprocess.run(argv, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if said.returncode:
            raise Unavailable(f"stock Celery did not take its {what}: {said.stderr.strip().splitlines()[-1:]}")
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    def look(self, now: float) -> View:
        metas = [self._read(meta) for meta in self._connection.mget([f"celery-task-meta-{each}" for each in (*self._members, self._join)])]
        join = metas.pop()
        running: dict[int, dict[str, float]] = {}
        for number, meta in enumerate(metas, start=1):
            if meta.get("status") == "STARTED":
                name = f"member-{number:02d}"
                running.setdefault(worker_of(meta["result"]["hostname"]), {})[name] = self._seen.setdefault(name, now)
        return View(sum(meta.get("status") == "SUCCESS" for meta in metas), running, _date_done(join) if join else None)

    def kill(self, worker: int) -> int:
        child = self._workers[worker - 1]
        pid = child.pid
        assert pid is not None, "not running"
        child.kill()
        child.bury(time.monotonic())
        child.start()
        return pid

    @staticmethod
    def _read(meta: Any) -> dict[str, Any]:
        return json.loads(meta) if meta else {}


def command(index: int, slots: int) -> tuple[str, ...]:
    """Return the command of worker `index` (from 1); the flags are those of our own workers."""
    flags = ("-n", f"w{index}@%h", "-c", str(slots), "--without-gossip", "--without-mingle", "--loglevel=INFO")
    return (sys.executable, "-P", "-m", "celery", "-A", "stock_app", "--workdir", str(PEER), "worker", *flags)


def _await_ready(children: list[Child]) -> None:
    deadline = time.monotonic() + READY_S
    for child in children:
        while " ready." not in child.said():
            if not child.alive() or time.monotonic() > deadline:
                raise Unavailable(f"{child.name}, a worker of stock Celery, did not get ready: {child.last_words()}")
            time.sleep(0.02)


def _date_done(meta: dict[str, Any]) -> float | None:
    if meta.get("status") != "SUCCESS":
        return None
    found = datetime.fromisoformat(meta["date_done"])
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
