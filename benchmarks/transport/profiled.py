"""Where the microseconds of a no-op go: cProfile in the worker's main process, and Redis's own count of what its scripts took."""

from __future__ import annotations

import os
import pstats
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from benchmarks.harness import ROOT, WORKER_FLAGS, command_costs, script_names
from benchmarks.profiling import PLACE, show
from benchmarks.transport.measure import System, open_epoch
from orchestrator.embedded import RedisServer
from orchestrator.embedded.tether import Tether


def profile(system: System, tenants: int, messages: int) -> None:
    """Let a profiled worker of `system` do `messages` and print the costs of one."""
    with tempfile.TemporaryDirectory(prefix="hg-profile-") as place:
        tether = Tether()
        server = RedisServer(Path(place) / "redis", tether=tether)
        server.start()
        try:
            with redis.Redis.from_url(server.client_url, decode_responses=True) as client:
                open_epoch(client)
                done = Path(place) / "done"
                env = system.environment(server, done, tenants, Path(place) / "home") | {PLACE: place}
                half = messages // 2
                for counted in (False, True):
                    subprocess.run([sys.executable, "-m", system.module, str(half), str(tenants)], cwd=ROOT, env=env, check=True)
                    _work(system, env, Path(place), done, half, tether, client if counted else None)
            found = next(Path(place).glob("main.*"))
            show("main", pstats.Stats(str(found), stream=sys.stdout), half)
        finally:
            server.stop()
            tether.close()


def _work(system: System, env: dict[str, str], place: Path, done: Path, tasks: int, tether: Tether, client: redis.Redis | None) -> None:
    """Run a worker until `tasks` more are done: with `client`, with every command in Redis's slow log, else with cProfile."""
    argv = (sys.executable, "-P", "-m", "celery", "-A", system.app, "worker", "-n", "peer@%h", *WORKER_FLAGS)
    if client is None:
        argv += ("-I", "benchmarks.profiling")
    else:
        client.config_set("slowlog-max-len", 1_000_000)
        client.config_set("slowlog-log-slower-than", 0)
        client.slowlog_reset()
    upto = tasks + (done.stat().st_size if done.exists() else 0)
    with (place / "worker.log").open("ab") as output:
        worker = tether.spawn(argv, env=env, output=output)
    deadline = time.monotonic() + 120
    while (not done.exists() or done.stat().st_size < upto) and time.monotonic() < deadline:
        time.sleep(0.005)
    if client is not None:
        client.config_set("slowlog-log-slower-than", -1)
    # Nothing is left to do, so it ends at once, and writes its profile as it does.
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    tether.release(worker)
    if client is not None:
        log: Any = client.execute_command("SLOWLOG", "GET", -1)
        print("\nRedis: commands sent a task, each with the commands inside it")
        for name, cost in command_costs(reversed(log), script_names(), tasks).items():
            if cost.per_node > 0.005:
                print(f"{cost.per_node:8.2f} x {cost.us_each:6.0f} us, {cost.inside:5.1f} commands inside  {name}")
