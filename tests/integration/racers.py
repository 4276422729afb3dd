"""A process that submits runs, one after the other, until it has or is killed; started by tests as a program.

Arguments: tenant, how many, a file that its nodes wait for, their log. Prints the id of each run, or `refused` and the error's class.
"""

from __future__ import annotations

import importlib
import sys

from orchestrator.client import Client
from orchestrator.graph import Graph
from tenancy.errors import Refused


def main(tenant: str, count: int, path: str, log: str) -> None:
    importlib.import_module("node_tasks")
    client = Client()
    graph = Graph.parse({"name": "race", "nodes": [{"id": "a", "task": "node_tasks.wait_for", "params": {"path": path, "log": log}}]})
    for _ in range(count):
        try:
            say(client.submit(graph, tenant=tenant).run_id)
        except Refused as error:
            say("refused", type(error).__name__, error.limit, error.current, error.retry_after_s)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
