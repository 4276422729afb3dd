"""A map over many items: the memory of every process, the longest message, and what an item takes in Redis, beside a narrow one."""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks import harness
from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.settings import Settings

WIDTHS = (1_000, 10_000)
RUN_S = 900.0
LOOK_S = 0.5
MEMORY_MAX = 500 << 20
"""What no process may come to, bytes; the promise for a graph of 100,000 nodes."""
MESSAGE_MAX = 64 << 10


def graph(width: int) -> Graph:
    """A literal list of so many numbers, a node for each that returns a text of that length, and these gathered."""
    nodes = [{"id": "m", "task": "synthetic.emit", "map": lengths(width), "params": {"bytes": {"$item": True}}, "max_items": width}]
    return Graph.parse({"name": f"wide-{width}", "nodes": nodes})


def lengths(width: int) -> list[int]:
    """What the items are: each length up to 99 bytes in turn."""
    return [number % 100 for number in range(width)]


class Watch:
    """Looks at the stack's processes and at Redis until it is left; `most` has the greatest figures seen."""

    def __init__(self, stack: Stack, connection: redis.Redis) -> None:
        self.stack, self.connection = stack, connection
        self.most: dict[str, int] = defaultdict(int)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            for name, pid in self.stack.pids().items():
                self._note(f"rss {name}", _largest(pid))
            info: Any = self.connection.info("memory")
            self._note("redis bytes", int(info["used_memory"]))
            _, messages = self.connection.hscan("hg1:msg", count=200)  # type: ignore[misc]
            self._note("message bytes", max(map(len, messages.values()), default=0))

    def _note(self, name: str, figure: int) -> None:
        self.most[name] = max(self.most[name], figure)


def _largest(pid: int) -> int:
    """Resident bytes of a process, or of the largest of its children."""
    found = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            found = max(found, process.memory_info().rss)
    except psutil.Error:
        pass  # it has just ended
    return found


def measure(width: int) -> dict[str, Any]:
    """Run one map of that width on a stack of its own."""
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as place:
        settings = Settings(home=Path(place))
        with Stack(settings, 2, 2, console=False) as stack, redis.Redis.from_url(stack.client_url, decode_responses=True) as connection:
            client = Client(settings.model_copy(update={"redis_url": stack.redis_url}))
            idle: Any = connection.info("memory")
            with Watch(stack, connection) as watch:
                began = time.monotonic()
                run = client.submit(graph(width)).wait(RUN_S)
                took = time.monotonic() - began
            if run.outcome != "succeeded" or [len(text) for text in run.result("m")] != lengths(width):
                raise RuntimeError(f"the run of {width} items is {run.outcome}")
    most = watch.most
    return {
        "width": width,
        "took_s": round(took, 1),
        "items_per_s": round(width / took),
        "process_bytes": max(figure for name, figure in most.items() if name.startswith("rss ")),
        "processes": {name.removeprefix("rss "): figure for name, figure in sorted(most.items()) if name.startswith("rss ")},
        "message_bytes": most["message bytes"],
        "redis_bytes_per_item": round((most["redis bytes"] - int(idle["used_memory"])) / width),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench width", description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--json", type=Path, help="write the results to this file")
    chosen = parser.parse_args(arguments)
    if not all(1 <= width <= 10_000 for width in chosen.widths):
        parser.error("a map takes from 1 to 10000 items")
    rows = [measure(width) for width in chosen.widths]
    found = {"commit": harness.commit(), "machine": harness.machine(), "rows": rows}
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['width']:6} items in {row['took_s']} s ({row['items_per_s']} a second): "
            f"largest process {row['process_bytes'] >> 20} MiB, longest message {row['message_bytes']} bytes, "
            f"{row['redis_bytes_per_item']} bytes of Redis an item"
        )
    met = all(row["process_bytes"] <= MEMORY_MAX and row["message_bytes"] <= MESSAGE_MAX for row in rows)
    print(f"promised: processes of at most {MEMORY_MAX >> 20} MiB, messages of at most {MESSAGE_MAX} bytes: {'met' if met else 'MISSED'}")
    return 0 if met else 1
