"""The workloads as graphs, and the process that submits them: one line of JSON for each workload named on stdin.

A fan of no-ops with nothing after it (`group`), a fan and back (`chord`: all results go into the last node), and a `chain` in
which each node takes the result of the one before. Stock Celery's are in stock_peer.py.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

NOOP = "synthetic.noop"


@dataclass(frozen=True)
class Workload:
    """A shape with its number of nodes, the join included."""

    name: str
    shape: str
    nodes: int


WORKLOADS = {
    each.name: each for each in (Workload("group", "group", 1000), Workload("chord", "chord", 1001), Workload("chain", "chain", 100))
}


def graph_of(shape: str, nodes: int) -> dict[str, Any]:
    """Return the graph of a workload, as JSON has it."""
    ids = [f"n{at}" for at in range(nodes)]
    params: dict[str, dict[str, Any]] = {}
    if shape == "chord":
        params[ids[-1]] = {"inputs": [{"$ref": each} for each in ids[:-1]]}
    elif shape == "chain":
        params = {after: {"inputs": [{"$ref": before}]} for before, after in pairwise(ids)}
    return {"name": f"{shape}_{nodes}", "nodes": [{"id": each, "task": NOOP, "params": params.get(each, {})} for each in ids]}


def main() -> None:
    from orchestrator.client import Client
    from orchestrator.graph import Graph

    client = Client()
    _ = client.kernel, client.engine  # importing and connecting is not what is measured
    for line in sys.stdin:
        wanted = json.loads(line)
        graph = Graph.parse(graph_of(wanted["shape"], wanted["nodes"]))
        started, cpu = time.time(), time.process_time()
        run = client.submit(graph)
        submitted = time.time()
        run.wait(timeout_s=300)
        ended, cpu_s = time.time(), time.process_time() - cpu
        outcome, nodes = run.outcome, run.nodes
        if outcome != "succeeded":
            sys.exit(f"the run {run.run_id} is {outcome}")
        last = max(node["finished_at"] for node in nodes)
        told = {"submitted_s": submitted - started, "ended_s": last - started, "done_s": ended - started}
        print(json.dumps({**told, "cpu_s": cpu_s, "polls": 0, "looks": 0}), flush=True)


if __name__ == "__main__":
    main()
