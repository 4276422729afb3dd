"""A block of trials on a stack of its own, under load. Runs as a process of its own.

`python -m benchmarks.stops.block FIRST COUNT HOME` prints the results as one line of JSON. The number of a trial decides all of it:
the graph of 200 nodes, what is stopped and when, and which processes are killed before and after the acknowledgement.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from benchmarks.stops.load import LOG
from benchmarks.stops.verdict import Stop, violations
from orchestrator.cancellation import fed_only_by
from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from tenancy.errors import HeadgateError, Unavailable

NODES = 200
WORKERS, SLOTS = 2, 2
LOOKS_S = (1.5, 3.0)
"""How long a trial looks for starts after the acknowledgement, from and to."""
ENDS_WITHIN_S = 90.0
KINDS = ("cancel run", "cancel node", "cancel subgraph", "cancel tenant", "cancel platform", "pause run", "pause tenant", "pause platform")
FAULTS = ("none", "worker", "workers", "child", "beat", "redis")
TENANT, OTHER = "acme", "default"


def graph_of(rng: random.Random) -> Graph:
    """A random graph of 200 nodes: each waits for up to three of the twenty before it, the first ten for none."""
    nodes: list[dict[str, Any]] = []
    for at in range(NODES):
        parents = rng.sample(range(max(0, at - 20), at), min(at, rng.randint(0, 3))) if at >= 10 else []
        params = {"seconds": rng.choice((0.0, 0.01, 0.05)), "inputs": [{"$ref": f"n{parent}"} for parent in sorted(parents)]}
        nodes.append({"id": f"n{at}", "task": "stops.work", "params": params})
    return Graph.parse({"name": "stops", "nodes": nodes})


class Block:
    """Plays trials `first` to `first + count - 1` in `home`."""

    def __init__(self, first: int, count: int, home: Path) -> None:
        self.numbers = range(first, first + count)
        self.log = home / "executions.jsonl"
        self.settings = Settings(
            home=home, tasks=("benchmarks.stops.load",), sweep_interval_s=1.0, stale_after_s=1.0, incarnation_ttl_s=2.0, worker_wait_s=20.0
        )
        self.troubles: list[str] = []
        self._over = threading.Event()

    def play(self) -> list[dict[str, Any]]:
        """Return the results, as JSON values."""
        os.environ[LOG] = str(self.log)
        with Stack(self.settings, WORKERS, SLOTS, console=False) as stack:
            for name in [name for name in os.environ if name.startswith(("HEADGATE_", "CELERY_"))]:
                del os.environ[name]
            os.environ.update(self.settings.environment(redis_url=stack.redis_url))
            Settings.forget()
            client = Client()
            client.tenants.create(TENANT, max_concurrent_runs=50)
            load = threading.Thread(target=self._load, args=[client], daemon=True)
            load.start()
            found = [Trial(number, stack, client, self.log).play() for number in self.numbers]
            self._over.set()
            load.join()
            return found

    def _load(self, client: Client) -> None:
        """Runs of another tenant, all the time; where everything is stopped they are, too."""
        runs: list[RunHandle] = []
        graph = Graph.parse({"name": "load", "nodes": [{"id": f"n{at}", "task": "stops.work", "params": {}} for at in range(20)]})
        while not self._over.is_set():
            with contextlib.suppress(HeadgateError):  # Redis is down
                runs = [run for run in runs if run.status not in ("ended", "refused")]
                if len(runs) < 2:
                    runs.append(client.submit(graph, tenant=OTHER))
            self._over.wait(0.1)


class Trial:
    """One stop."""

    def __init__(self, number: int, stack: Stack, client: Client, log: Path) -> None:
        self.number, self.stack, self.client, self.log = number, stack, client, log
        self.rng = random.Random(number)
        self.kind = KINDS[number % len(KINDS)]
        self.before, self.after = self.rng.choice(FAULTS), self.rng.choice(FAULTS)

    def play(self) -> dict[str, Any]:
        """Stop a run's scope while it runs, break things, look whether anything of it begins, and see it end."""
        graph, kind = graph_of(self.rng), self.kind
        run = self._patiently(lambda: self.client.submit(graph, tenant=TENANT, key=f"trial-{self.number}"))
        time.sleep(self.rng.uniform(0.0, 1.2))
        self._break(self.before)
        nodes = self._chosen(graph)
        started = time.monotonic()
        scope = {"run": f"run:{run.run_id}", "tenant": f"tenant:{TENANT}", "platform": "platform"}.get(kind.split()[1], "")
        acknowledged = self._patiently(lambda: self._act(run, nodes, scope))
        took_ms = int((time.monotonic() - started) * 1000)
        self._break(self.after)
        time.sleep(self.rng.uniform(*LOOKS_S))
        if kind.startswith("pause"):
            self._patiently(lambda: self.client.resume(scope, reason="trial", by="trial"))
        ended = self._ends(run)
        stop = Stop(kind, run.run_id, scope if kind.split()[1] in ("tenant", "platform") else "", tuple(nodes))
        events, executions = self._patiently(self._evidence)
        broken = violations(stop, events, executions)
        if not ended:
            broken.append(f"the run did not end within {ENDS_WITHIN_S:g} s: it is {run.status}")
        if not acknowledged and run.outcome not in ("succeeded", "failed", "cancelled"):
            broken.append("nothing was stopped, and the run had not ended")
        nodes_of_run = [node["outcome"] for node in run.nodes]
        if None in nodes_of_run:
            broken.append(f"{nodes_of_run.count(None)} nodes have no outcome")
        return {
            "trial": self.number,
            "kind": kind,
            "faults": [self.before, self.after],
            "stopped": bool(acknowledged),
            "outcome": run.outcome,
            "began": sum(event["t"] == "node.began" and event["run"] == run.run_id for event in events),
            "acknowledged_ms": took_ms,
            "load": round(os.getloadavg()[0], 1),
            "violations": broken,
        }

    def _chosen(self, graph: Graph) -> list[str]:
        """The nodes that a stop of nodes names, what only they feed included."""
        if "node" not in self.kind and "subgraph" not in self.kind:
            return []
        named = [f"n{self.rng.randrange(NODES)}" for _ in range(3)]
        return fed_only_by(graph.parents(), named) if "subgraph" in self.kind else named

    def _act(self, run: RunHandle, nodes: list[str], scope: str) -> bool:
        if self.kind.startswith("pause"):
            with contextlib.suppress(HeadgateError):
                if run.status == "ended":
                    return False
            return self.client.pause(scope, reason="trial", by="trial")
        if nodes:
            if run.status == "ended":
                return False
            return run.cancel(nodes, reason="trial", by="trial")
        if self.kind == "cancel run":
            return run.cancel(reason="trial", by="trial")
        return bool(self.client.cancel_all(scope, reason="trial", by="trial"))

    def _patiently(self, act: Any) -> Any:
        """What `act` returns, once Redis and the recorder are there."""
        until = time.monotonic() + ENDS_WITHIN_S
        while True:
            try:
                return act()
            except Unavailable:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def _break(self, fault: str) -> None:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, IndexError, KeyError, Unavailable):  # it is down already
            workers = sorted(name for name in self.stack.pids() if name.startswith("w"))
            if fault in ("worker", "workers"):
                for name in workers if fault == "workers" else [self.rng.choice(workers)]:
                    self.stack.child(name).deaths = 0
                    self.stack.kill_worker(int(name[1:]))
            elif fault == "child":
                children = psutil.Process(self.stack.pids()[self.rng.choice(workers)]).children()
                self.rng.choice(children).kill()
            elif fault == "beat":
                self.stack.child("beat").deaths = 0
                psutil.Process(self.stack.pids()["beat"]).kill()
            elif fault == "redis":
                psutil.Process(self.stack.pids()["redis"]).kill()  # the stack starts it again

    def _ends(self, run: RunHandle) -> bool:
        until = time.monotonic() + ENDS_WITHIN_S
        while time.monotonic() < until:
            with contextlib.suppress(HeadgateError):
                if run.status == "ended":
                    return True
            time.sleep(0.1)
        return False

    def _evidence(self) -> tuple[list[dict[str, Any]], list[tuple[str, int]]]:
        """The recorded log in its order, and the executions that began, by key and attempt."""
        with self.client.engine.connect() as connection:
            rows = connection.execute(select(t.event.c.data).order_by(t.event.c.epoch, t.event.c.seq)).all()
        lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [json.loads(row.data) for row in rows], [(str(key), int(attempt)) for key, attempt in lines]


def main() -> None:
    first, count, home = sys.argv[1:4]
    print(json.dumps(Block(int(first), int(count), Path(home)).play()), flush=True)


if __name__ == "__main__":
    main()
