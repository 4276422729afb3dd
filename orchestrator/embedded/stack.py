"""The embedded stack: Redis, recorder, workers, beat and console as children of one process."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from orchestrator.embedded.child import Child, Program
from orchestrator.embedded.commands import Commands
from orchestrator.embedded.lock import HomeLock
from orchestrator.embedded.readiness import kernel_ready
from orchestrator.embedded.redis_server import RedisServer
from orchestrator.embedded.reload import SourceWatch
from orchestrator.embedded.supervisor import Supervisor
from orchestrator.embedded.tether import Tether
from orchestrator.redis_url import for_client, for_kombu
from orchestrator.settings import Settings
from tenancy.errors import HeadgateError, Unavailable

READY_S = 60.0
GRACE_S = 10.0
Ready = Callable[[Child, redis.Redis], bool]
"""Whether a child, the recorder or a worker, does its work; asked until it is so."""


class Interrupted(HeadgateError):
    """The stack was told to stop before it was ready."""


class Stack:
    """Everything that runs graphs, under one home, for as long as this process lives or the context lasts.

    Parameters: `workers` process groups (1..64) of `concurrency` slots each; `tasks` are modules beside those of the
    settings; `reload` starts the workers anew when a file of those modules changes; `report` is told in one sentence
    what happens to a child, from another thread; `ready` says whether the recorder or a worker
    does its work; `interrupt`, once set, ends starting;
    `hurry`, once set, ends the grace while stopping.

    With `settings.redis_url` set, that Redis is used and none is started. Raises Unavailable on entering if a stack runs in
    the home already, or if Redis, the recorder or a worker does not get ready.
    """

    def __init__(
        self,
        settings: Settings,
        workers: int = 2,
        concurrency: int = 2,
        tasks: Iterable[str] = (),
        beat: bool = True,
        console: bool = True,
        *,
        reload: bool = False,
        report: Callable[[str], None] = lambda _: None,
        ready: Ready = kernel_ready,
        commands: Commands | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        if not 1 <= workers <= 64 or not 1 <= concurrency <= 256:
            raise HeadgateError(f"a stack has 1 to 64 workers of 1 to 256 slots, not {workers} of {concurrency}")
        self.settings = settings
        self.home = settings.home.absolute()
        self.tasks = tuple(dict.fromkeys((*settings.tasks, *tasks)))
        self.redis: RedisServer | None = None
        self.console_url: str | None = None
        self.interrupt = threading.Event()
        self.hurry = threading.Event()
        self._workers, self._concurrency, self._beat, self._console = workers, concurrency, beat, console
        self._reload, self._report, self._grace_s = reload, report, grace_s
        self._ready = ready
        self._commands = commands or Commands()
        self._lock = HomeLock(settings.lock_file.absolute())
        self._children: dict[str, Child] = {}
        self._supervisor: Supervisor | None = None
        self._tether: Tether | None = None
        self._started_at = 0.0
        self._log_dir = self.home / "logs"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def log_dir(self) -> Path:
        """Where each child has its NAME.log."""
        return self._log_dir

    @property
    def redis_url(self) -> str:
        """The Redis of the stack as Kombu and Celery read it."""
        if self.redis is not None:
            return self.redis.url
        assert self.settings.redis_url is not None, "not started"
        return for_kombu(self.settings.redis_url)

    @property
    def client_url(self) -> str:
        """The Redis of the stack as redis-py reads it."""
        return for_client(self.redis_url)

    def pids(self) -> dict[str, int]:
        """Return the process id of each running child by name: redis, recorder, w1 ..., system, beat, console."""
        found = {"redis": self.redis.pid} if self.redis is not None and self.redis.alive() else {}
        return found | {name: child.pid for name, child in self._children.items() if child.pid is not None}

    def child(self, name: str) -> Child:
        """Return the child called `name`; raises KeyError if there is none."""
        return self._children[name]

    def start(self) -> None:
        """Start everything and return when it is ready; on a failure nothing is left running."""
        self._lock.acquire()
        self.settings.stack_file.unlink(missing_ok=True)  # a stack that was killed left it, and the lock now vouches for it
        self._tether = Tether(keep=(self._lock.fd,))
        self._started_at = time.time()
        try:
            if self.settings.redis_url is None:
                self.redis = RedisServer(self.home / "redis", tether=self._tether)
                self.redis.start()
            with redis.Redis.from_url(self.client_url) as client:
                self._start_children(self._tether, client)
            self._write()
            sources = SourceWatch(self.tasks) if self._reload else None
            children = tuple(self._children.values())
            self._supervisor = Supervisor(
                children, redis=self.redis, sources=sources, grace_s=self._grace_s, report=self._report, on_change=self._write
            )
            self._supervisor.start()
        except BaseException:
            self.stop()
            raise

    def wait_ready(self, name: str, predicate: Callable[[], bool], timeout_s: float = READY_S) -> None:
        """Wait until `predicate` holds for the child `name`.

        Raises Unavailable with the child's last words if it ends before that or takes longer than `timeout_s`, and
        Interrupted if the stack is told to stop.
        """
        child = self._children[name]
        deadline = time.monotonic() + timeout_s
        while not predicate():
            if self.interrupt.is_set():
                raise Interrupted("the stack was told to stop before it was ready")
            if not child.alive() or time.monotonic() > deadline:
                what = f"was not ready within {timeout_s:g} s" if child.alive() else "ended while starting"
                raise Unavailable(f"{name} {what}: {child.last_words()} (see {child.program.log})")
            time.sleep(0.02)

    def kill_worker(self, index: int, *, restart: bool = True) -> int:
        """Kill worker `index` (from 1) and its pool by SIGKILL; return its pid.

        It is started again unless `restart` is false. Raises Unavailable if it does not run at the moment.
        """
        assert self._supervisor is not None, "not started"
        return self._supervisor.kill(self._children[f"w{index}"], restart=restart)

    def stop(self) -> None:
        """End everything in good order: producers of work first, Redis last; by force after the grace."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        self.settings.stack_file.unlink(missing_ok=True)
        # The recorder outlives the workers: what they did last is to be recorded.
        self._end([child for name, child in self._children.items() if name != "recorder"])
        self._end([child for name, child in self._children.items() if name == "recorder"])
        self._children.clear()
        if self.redis is not None:
            self.redis.stop()
        if self._tether is not None:
            self._tether.close()
            self._tether = None
        self._lock.release()

    def _start_children(self, tether: Tether, client: redis.Redis) -> None:
        env = child_environment(os.environ, self.settings.environment(redis_url=self.redis_url, tasks=self.tasks))
        commands = self._commands
        argvs = {"recorder": commands.recorder()}
        argvs |= {f"w{index}": commands.worker(index, self._concurrency) for index in range(1, self._workers + 1)}
        if self._beat:
            argvs["system"] = commands.system()
            argvs["beat"] = commands.beat(self.home / "beat-schedule")
        if self._console:
            port = free_port()
            self.console_url = f"http://127.0.0.1:{port}"
            argvs["console"] = commands.console(port)
        for name, argv in argvs.items():
            self._children[name] = Child(Program(name, argv, env, self._log_dir / f"{name}.log"), tether)
            self._children[name].start()
            if name == "recorder":
                # Before it has opened the epoch, every script of a worker is refused.
                self._await([name], client)
        self._await([name for name in self._children if name.startswith("w")], client)

    def _await(self, names: Iterable[str], client: redis.Redis) -> None:
        for name in names:
            self.wait_ready(name, partial(self._ready, self._children[name], client))

    def _end(self, children: Sequence[Child]) -> None:
        for child in children:
            child.retired = True
            child.ask()
        deadline = time.monotonic() + self._grace_s
        while any(child.alive() for child in children) and time.monotonic() < deadline:
            if self.hurry.wait(0.02):
                break
        for child in children:
            child.kill()
            if child.pid is not None:
                child.bury(time.monotonic())

    def _write(self) -> None:
        found = {
            "redis_url": self.redis_url,
            "database_url": self.settings.resolved_database_url(),
            "console_url": self.console_url,
            "pids": {"stack": os.getpid(), **self.pids()},
            "started_at": self._started_at,
        }
        fresh = self.settings.stack_file.with_name("stack.json.new")
        fresh.touch(mode=0o600)  # URLs may have passwords
        fresh.write_text(json.dumps(found, indent=1) + "\n")
        fresh.replace(self.settings.stack_file)


def child_environment(inherited: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child: what was inherited, with `settings` for ours and without Celery's own variables.

    CELERY_BROKER_URL, say, would win over the stack's Redis.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith(("CELERY_", "HEADGATE_"))}
    return {**kept, **settings, "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """Return a port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
