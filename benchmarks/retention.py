"""What is left in Redis of many small runs once the time is over for which it keeps them."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis

from benchmarks import harness
from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from tenancy.errors import Refused

PROMISED = 1.05
KEPT_S = 5.0
WARM_UP = 200
SETTLE_S = 300.0
RUN_S = 600.0
THREADS = 8
KEYS_OF_RUNS = ("hg1:run:", "hg1:state:", "hg1:res:")

GRAPH = Graph.parse(
    {
        "name": "small",
        "nodes": [
            {"id": "a", "task": "synthetic.noop"},
            {"id": "b", "task": "synthetic.noop", "after": ["a"]},
            {"id": "c", "task": "synthetic.noop", "after": ["b"]},
        ],
    }
)


@contextlib.contextmanager
def stack(home: Path) -> Iterator[tuple[Client, redis.Redis]]:
    """A stack that keeps for seconds what it keeps for an hour by default."""
    settings = Settings(home=home, run_keys_kept_s=KEPT_S, event_retention_s=KEPT_S)
    with Stack(settings, 2, 2, console=False) as running:
        client = Client(settings.model_copy(update={"redis_url": running.redis_url}))
        with redis.Redis.from_url(running.client_url, decode_responses=True) as connection:
            yield client, connection


def play(client: Client, runs: int) -> None:
    """Run the graph so often, a few at a time; raises RuntimeError for a run that does not succeed."""

    def one(number: int) -> None:
        while True:
            try:
                run = client.submit(GRAPH)
                break
            except Refused as refused:  # its line is full
                print(f"run {number} waits: {refused}", file=sys.stderr)
                time.sleep(1)
        if run.wait(RUN_S).outcome != "succeeded":
            raise RuntimeError(f"run {run.run_id} is {run.outcome}")
        if number % 1000 == 999:
            print(f"{number + 1} runs", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(runs)))


def memory(connection: redis.Redis) -> int:
    """Bytes that Redis uses, without what clients and their answers take at the moment."""
    info: Any = connection.info("memory")
    return int(info["used_memory"]) - int(info["mem_clients_normal"]) - int(info["mem_aof_buffer"])


def settled(connection: redis.Redis, below: float = float("inf")) -> int:
    """Wait until no run is kept any more and the log is trimmed; then return the least memory of some looks, early where it is `below`."""
    until = time.monotonic() + SETTLE_S
    while connection.zcard("hg1:over") or connection.zcard("hg1:runs") or any(_keys(connection)) or connection.xlen("hg1:events") > 300:
        if time.monotonic() > until:
            raise RuntimeError(f"still there after {SETTLE_S:g} s: {[*_keys(connection)][:5]}, {connection.xlen('hg1:events')} events")
        time.sleep(0.5)
    least = memory(connection)
    for _ in range(60):  # Redis makes its tables smaller in its own time
        time.sleep(0.5)
        least = min(least, memory(connection))
        if least <= below:
            break
    return least


def _keys(connection: redis.Redis) -> Iterator[str]:
    for beginning in KEYS_OF_RUNS:
        yield from connection.scan_iter(beginning + "*", count=1000)


def measure(runs: int) -> dict[str, Any]:
    """Measure memory before, with and after so many runs."""
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as place, stack(Path(place)) as (client, connection):
        play(client, WARM_UP)  # scripts, connections and tables of their usual size
        idle, keys = settled(connection), int(connection.dbsize())
        began = time.monotonic()
        play(client, runs)
        took, most = time.monotonic() - began, int(connection.info("memory")["used_memory_peak"])  # type: ignore[index]
        after = settled(connection, below=idle * PROMISED)
        return {
            "commit": harness.commit(),
            "machine": harness.machine(),
            "runs": runs,
            "nodes": runs * len(GRAPH.nodes),
            "kept_s": KEPT_S,
            "took_s": round(took, 1),
            "idle_bytes": idle,
            "peak_bytes": most,
            "after_bytes": after,
            "after_to_idle": round(after / idle, 4),
            "keys_idle": keys,
            "keys_after": int(connection.dbsize()),
        }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench retention", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.runs <= 1_000_000:
        parser.error("--runs is from 1 to 1000000")
    found = measure(chosen.runs)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['runs']} runs in {found['took_s']} s; idle {found['idle_bytes']} bytes, after {found['after_bytes']}")
    met = found["after_to_idle"] <= PROMISED
    print(f"promised: at most {PROMISED:.2f} of idle: {found['after_to_idle']:.3f}, {'met' if met else 'MISSED'}")
    return 0 if met else 1
