"""Where our worker's microseconds go: cProfile in its main process and its children, switched on by loading this as a module of tasks."""

from __future__ import annotations

import atexit
import cProfile
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from celery.signals import worker_init, worker_process_init, worker_process_shutdown

from benchmarks.fan import Workload

PLACE = "PROFILE_PLACE"
"""Environment: the directory that profiles are written to; without it nothing is profiled."""

REPEAT = 3


def _start(kind: str) -> None:
    place = Path(os.environ[PLACE])
    profile = cProfile.Profile(time.process_time)  # waiting for Redis, or for a CPU, is not counted
    profile.enable()

    def stop(**_: Any) -> None:
        profile.disable()
        profile.dump_stats(place / f"{kind}.{os.getpid()}")

    if kind == "child":
        worker_process_shutdown.connect(stop, weak=False)
    else:
        pid = os.getpid()
        atexit.register(lambda: os.getpid() == pid and stop())


if PLACE in os.environ:
    worker_init.connect(lambda **_: _start("main"), weak=False)
    worker_process_init.connect(lambda **_: _start("child"), weak=False)


def profile(workload: Workload) -> None:
    """Run a workload a few times on a profiled worker and print where the time went, in microseconds a node."""
    from benchmarks.harness import OurSystem
    from orchestrator.embedded.commands import Commands

    with tempfile.TemporaryDirectory(prefix="hg-profile-") as place:
        os.environ[PLACE] = place
        commands = Commands(recorder=lambda: (sys.executable, "-m", "cProfile", "-o", f"{place}/recorder.0", "-m", "orchestrator.recorder"))
        with OurSystem(Path(place) / "home", ["benchmarks.profiling"], commands) as system:
            for _ in range(REPEAT):
                told = system.ask(workload)
                print(f"{workload.name}: {told['done_s']:.2f} s (profiled, so slower than it is)")
        nodes = REPEAT * workload.nodes
        for kind in ("main", "child", "recorder"):
            found = sorted(Path(place).glob(f"{kind}.*"))
            if found:
                stats = pstats.Stats(*map(str, found), stream=sys.stdout)
                show(kind, stats, nodes)


def show(kind: str, stats: Any, nodes: int) -> None:
    """Print the costliest functions of a profile."""
    for order, title in ((3, "with what they called"), (2, "by themselves")):
        print(f"\n{kind}: microseconds a node, functions {title}")
        for (file, line, name), row in sorted(stats.stats.items(), key=lambda item: -item[1][order])[:60]:
            where = "/".join(file.split("/")[-3:])
            print(f"{1e6 * row[order] / nodes:10.0f} {row[0] / nodes:8.2f} calls  {name} {where}:{line}")
