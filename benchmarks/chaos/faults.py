"""Faults: what is done to which process at what time, decided by the seed and done to a running stack."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestrator.embedded import Stack

ACTS = ("cancel", "cancel nodes", "pause", "point")
"""What the harness does itself: cancels a run or nodes of one, pauses a run, a tenant or everything for a while, arms a named point."""
KINDS = ("worker", "child", "recorder", "beat", "redis", "freeze", "stall", "restart", *ACTS)
"""SIGKILL of a worker's group, of one of its pool's processes, of recorder, beat and Redis; `freeze`: SIGSTOP of a worker's group
for a while; `stall`: of recorder, beat or Redis, for up to 4 s; `restart`: SIGTERM of a worker, the recorder or beat."""
STALLED = ("recorder", "redis", "beat")
RESTARTED = ("w1", "recorder", "w2", "beat")
STALL_MOST_S = 4.0
POWER = "power"
"""Redis loses part of its last second, as with a machine without power: in some seeds, or where it is asked for."""
POWER_ODDS = 0.25
MORE = (*(kind for kind in KINDS if kind != "freeze"), "point", "point", "point")
FREEZE_S = 6.0
"""Longer than an incarnation lives without a heartbeat: who wakes up finds that its work was given to others."""
_FIND_S = 10.0
_BUSY_S = 2.0
_UNSYNCED_S = 1.0
"""appendfsync everysec: what Redis wrote within a second may be lost with the machine, though not with the process."""


@dataclass(frozen=True)
class Fault:
    """One fault of the schedule: `after_s` seconds after the one before it; `pick` decides between workers, children or runs."""

    kind: str
    after_s: float
    pick: int


@dataclass(frozen=True)
class Done:
    """A fault that happened: when (epoch milliseconds, before it was done), and to which process; pid 0 for a cancellation."""

    kind: str
    at: int
    target: str
    pid: int

    def row(self) -> dict[str, Any]:
        return asdict(self)


def schedule(rng: random.Random, count: int, *, power: bool = False) -> list[Fault]:
    """Return `count` faults (1 or more): every kind once before any comes again, and one worker frozen at most."""
    kinds = [*KINDS, POWER] if power or rng.random() < POWER_ODDS else list(KINDS)
    rng.shuffle(kinds)
    while len(kinds) < count:
        kinds.append(rng.choice(MORE))
    return [Fault(kind, round(rng.uniform(0.3, 1.6), 3), rng.randrange(1_000_000)) for kind in kinds[:count]]


class Saboteur:
    """Does faults to a stack.

    `act` does one of ACTS and returns what it did it to, or None when there was nothing. `busy` says whether the worker of a
    pid executes a node: a worker is hit while it works, if it gets work within 2 s.
    """

    def __init__(self, stack: Stack, act: Callable[[str, int], str | None], busy: Callable[[int], bool]) -> None:
        self._stack = stack
        self._act = act
        self._busy = busy
        self._thaws: list[threading.Timer] = []
        self.restarted: list[str] = []
        """What was told to end, and ends with code 0 because of that."""

    def do(self, fault: Fault) -> Done | None:
        """Do one fault; None when nothing could be found to do it to, because it had not come back from the one before."""
        at = time.time_ns() // 1_000_000
        if fault.kind in ACTS:
            target = self._act(fault.kind, fault.pick)
            return Done(fault.kind, at, target, 0) if target else None
        try:
            match fault.kind:
                case "worker" | "freeze" | "child":
                    return self._at_worker(fault)
                case "stall":
                    return self._stall(STALLED[fault.pick % len(STALLED)], 1.0 + fault.pick % 100 / 100 * (STALL_MOST_S - 1.0))
                case "restart":
                    return self._restart(RESTARTED[fault.pick % len(RESTARTED)])
                case _:
                    return self._at_service(fault)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return None  # it ended by itself just before

    def _at_service(self, fault: Fault) -> Done | None:
        pid = self._await("redis" if fault.kind == POWER else fault.kind)
        if pid is None:
            return None
        log = _append_only_file(self._stack) if fault.kind == POWER else None
        synced = log.stat().st_size if log is not None else 0
        if log is not None:
            time.sleep(_UNSYNCED_S)
        at = time.time_ns() // 1_000_000
        if log is not None and log.exists():
            # Stopped first, so that it cannot write behind the cut.
            os.kill(pid, signal.SIGSTOP)
            written = log.stat().st_size
            os.truncate(log, written - (written - synced) * (fault.pick % 101) // 100)
        os.kill(pid, signal.SIGKILL)
        return Done(fault.kind, at, "redis" if log is not None else fault.kind, pid)

    def _stall(self, name: str, for_s: float) -> Done | None:
        pid = self._await(name)
        if pid is None:
            return None
        at, created = time.time_ns() // 1_000_000, psutil.Process(pid).create_time()
        os.kill(pid, signal.SIGSTOP)
        self._thaw_later(for_s, pid, created, os.kill)
        return Done("stall", at, name, pid)

    def _restart(self, name: str) -> Done | None:
        pid = self._await(name)
        if pid is None:
            return None
        at = time.time_ns() // 1_000_000
        self.restarted.append(name)
        os.kill(pid, signal.SIGTERM)
        return Done("restart", at, name, pid)

    def _thaw_later(self, for_s: float, pid: int, created: float, send: Callable[[int, int], None]) -> None:
        timer = threading.Timer(for_s, _go_on, (pid, created, send))
        timer.start()
        self._thaws.append(timer)

    def thaw(self) -> None:
        """Wait until everything that was frozen goes on."""
        for timer in self._thaws:
            timer.join()

    def _at_worker(self, fault: Fault) -> Done | None:
        name = f"w{1 + fault.pick % 2}"
        pid = self._await(name)
        if pid is None:
            return None
        until = time.monotonic() + _BUSY_S
        while not self._busy(pid) and time.monotonic() < until:
            time.sleep(0.005)
        at = time.time_ns() // 1_000_000
        if fault.kind == "worker":
            os.killpg(pid, signal.SIGKILL)
        elif fault.kind == "freeze":
            os.killpg(pid, signal.SIGSTOP)
            self._thaw_later(FREEZE_S, pid, psutil.Process(pid).create_time(), os.killpg)
        else:
            children = psutil.Process(pid).children()
            if not children:
                return None
            child = children[fault.pick % len(children)]
            child.kill()
        return Done(fault.kind, at, name, pid)

    def _await(self, name: str) -> int | None:
        """Return the pid of a child of the stack, waiting for one that is being started again; of a worker, once it has a pool."""
        until = time.monotonic() + _FIND_S
        while time.monotonic() < until:
            pid = self._stack.pids().get(name)
            try:
                if pid is not None and (not name.startswith("w") or len(psutil.Process(pid).children()) >= 1):
                    return pid
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.02)
        return None


def _append_only_file(stack: Stack) -> Path:
    """Return the file that Redis appends to at the moment."""
    assert stack.redis is not None, "the stack has a Redis of its own"
    return max(stack.redis.directory.glob("appendonlydir/*.incr.aof"), key=lambda file: file.stat().st_mtime)


def _go_on(pid: int, created: float, send: Callable[[int, int], None]) -> None:
    """Wake `pid`, or with killpg its group, if it is still the process that was frozen."""
    try:
        if psutil.Process(pid).create_time() == created:
            send(pid, signal.SIGCONT)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass  # somebody killed it in its sleep
