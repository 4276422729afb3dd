"""One measurement: a fresh Redis, messages published, then a worker started, and how fast its tasks end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks.harness import ROOT, WORKER_FLAGS, children
from orchestrator.embedded import RedisServer
from orchestrator.embedded.stack import child_environment
from orchestrator.embedded.tether import Tether
from tenancy import keys

LOOK_S = 0.002
STARTS_WITHIN_S = 90.0
WARM = 0.1
"""The first tenth is not counted: the worker is still starting its pool."""


@dataclass(frozen=True)
class System:
    """What is measured: the module with the tasks, what `celery -A` loads, and its environment; `queues` of its own for each tenant."""

    name: str
    module: str
    app: str
    queues: bool = False
    env: tuple[tuple[str, str], ...] = ()

    def environment(self, server: RedisServer, done: Path, tenants: int, home: Path) -> dict[str, str]:
        given = {
            "PEER_REDIS": server.url,
            "PEER_DONE": str(done),
            "PYTHONPATH": str(ROOT),
            "PEER_QUEUES": str(tenants if self.queues else 0),
        }
        if self.app == "orchestrator.app":
            given |= {"HEADGATE_REDIS_URL": server.url, "HEADGATE_HOME": str(home), "HEADGATE_TASKS": self.module}
        return child_environment(os.environ, given | dict(self.env))


_PEERS = "benchmarks.transport."
FAIR = System("fair", _PEERS + "fair", _PEERS + "fair")
PRODUCT = System("headgate", _PEERS + "product", "orchestrator.app")
ONE = System("stock, one queue", _PEERS + "stock", _PEERS + "stock")
EACH = System("stock, a queue each", _PEERS + "stock", _PEERS + "stock", queues=True)
UNSAFE = System("stock, no acks", _PEERS + "stock", _PEERS + "stock", env=(("PEER_ACK", "off"),))


@dataclass(frozen=True)
class Measured:
    """Tasks a second, of how many, and microseconds of CPU a task by role."""

    rate: float
    counted: int
    cpu_us: Mapping[str, float]

    def row(self) -> dict[str, Any]:
        return {"rate": round(self.rate, 1), "counted": self.counted, "cpu_us": {role: round(us) for role, us in self.cpu_us.items()}}


def open_epoch(client: redis.Redis) -> None:
    """Bind the scripts to this start of Redis, which the recorder does where there is one."""
    server: Any = client.info("server")
    client.hset(keys.EPOCH, mapping={"epoch": 1, "server": server["run_id"], "seq": 0})


def _create_tenants(client: redis.Redis, tenants: int) -> None:
    """Let the product's workers know the tenants, whose budgets its ordinary tasks are charged to."""
    with client.pipeline(transaction=False) as pipe:
        for at in range(tenants):
            pipe.hset(f"hg1:tenant:t{at}", mapping={"limit_day": 10**12, "status": "active", "weight": 1})
        pipe.execute()


def measure(system: System, tenants: int, messages: int, longest_s: float) -> Measured:
    """Publish `messages`, start a worker and count until all are done, or for `longest_s` seconds. Raises RuntimeError if none is."""
    with tempfile.TemporaryDirectory(prefix="hg-transport-") as place:
        tether = Tether()
        server = RedisServer(Path(place) / "redis", tether=tether)
        server.start()
        try:
            with redis.Redis.from_url(server.client_url, decode_responses=True) as client:
                open_epoch(client)
                if system.app == PRODUCT.app:
                    _create_tenants(client, tenants)
            done, log = Path(place) / "done", Path(place) / "worker.log"
            env = system.environment(server, done, tenants, Path(place) / "home")
            said = subprocess.run(
                [sys.executable, "-m", system.module, str(messages), str(tenants)], cwd=ROOT, env=env, capture_output=True
            )
            if said.returncode:
                raise RuntimeError(f"{system.name} could not publish: {said.stderr.decode()[-800:]}")
            argv = (sys.executable, "-P", "-m", "celery", "-A", system.app, "worker", "-n", "peer@%h", *WORKER_FLAGS)
            with log.open("ab") as output:
                worker = tether.spawn(argv, env=env, output=output)
            try:
                return _watch(system, worker, server.pid, done, messages, longest_s, log)
            finally:
                worker.kill()
                worker.wait()
                tether.release(worker)
        finally:
            server.stop()
            tether.close()


def _watch(
    system: System, worker: subprocess.Popen[bytes], redis_pid: int, done: Path, messages: int, longest_s: float, log: Path
) -> Measured:
    def count() -> int:
        return done.stat().st_size if done.exists() else 0

    def wait(least: int, deadline: float) -> int:
        while (found := count()) < least and time.monotonic() < deadline:
            if worker.poll() is not None:
                raise RuntimeError(f"the worker of {system.name} ended: {log.read_text()[-800:]}")
            time.sleep(LOOK_S)
        return found

    if not wait(1, time.monotonic() + STARTS_WITHIN_S):
        raise RuntimeError(f"the worker of {system.name} did nothing within {STARTS_WITHIN_S:g} s: {log.read_text()[-800:]}")
    wait(int(messages * WARM), time.monotonic() + longest_s / 4)
    roles = {"main": [worker.pid], "children": children(worker.pid), "redis": [redis_pid]}
    began, first, before = time.monotonic(), count(), {role: _cpu_s(pids) for role, pids in roles.items()}
    last = wait(messages, began + longest_s)
    took, tasks = time.monotonic() - began, last - first
    cpu = {role: 1e6 * (_cpu_s(pids) - before[role]) / max(1, tasks) for role, pids in roles.items()}
    return Measured(tasks / took, tasks, cpu)


def _cpu_s(pids: list[int]) -> float:
    return sum(used.user + used.system for used in (psutil.Process(pid).cpu_times() for pid in pids))
