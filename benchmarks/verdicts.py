"""`./dev bench verdicts [--rounds N] [--json FILE]`: how long it takes to apply a decision that changes 10,000 pending nodes.

One run, on a Redis of its own; what is timed is all of it, from the decision as it is stored to the event that says that it is applied.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Spread
from orchestrator.assembly import producer_app
from orchestrator.embedded import RedisServer
from orchestrator.govern.order import Order, carry_out
from orchestrator.graph import Graph
from orchestrator.graph.limits import Limits
from orchestrator.log_key import log_key
from orchestrator.recorder.__main__ import first_start
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store.engine import open_engine
from orchestrator.submission import Submission
from tenancy.link import Link
from tenancy.transport.queue import Queue

NODES, PROMISED_MS = 10_000, 1_000
RUN = "01" + "0" * 24


def wide() -> Graph:
    """One node, and the others after it."""
    cheap = {"name": "cheap", "kind": "generation", "params": {"inputs": []}, "estimate": {"llm": 1}, "value": 1}
    task = {"task": "synthetic.noop", "estimate": {"llm": 10}, "variants": [cheap]}
    nodes: list[dict[str, Any]] = [{"id": "first", **task}]
    nodes += [{"id": f"n{index}", **task, "after": ["first"]} for index in range(NODES - 1)]
    return Graph.parse({"name": "wide", "nodes": nodes}, Limits(nodes=NODES, edges=NODES))


def measure(rounds: int) -> dict[str, Any]:
    """Give every node its variant and take it back, in turn; milliseconds of each decision."""
    took: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as place:
        server = RedisServer(Path(place) / "redis")
        server.start()
        try:
            settings = Settings(home=Path(place), redis_url=server.url)
            engine = open_engine(settings.resolved_database_url(), writer=True)
            first_start(engine, 0, log_key(settings))
            Recorder(Link(server.client_url), engine, settings).prepare()
            app = producer_app(settings)
            kernel, graph = app.headgate_kernel, wide()
            Queue(kernel.link).enroll(
                "i1", 600_000, {"name": "w", "host": "h", "pid": 1, "pools": ["default"], "tasks": ["synthetic.noop"]}
            )
            submission = Submission.of(graph, settings)
            reply = kernel.state.admit(RUN, 1, "default", submission.want(None))
            assert reply[0] == "admitted", reply
            for rows in submission.rows({}):
                kernel.state.load(RUN, 1, rows, {})
            kernel.state.launch(RUN, 1, 0, 1, submission.roots())
            for number in range(1, rounds + 2):
                choice = "cheap" if number % 2 else ""
                order = Order("beat", "a benchmark", judge={node.id: choice for node in graph.nodes})
                name = f"{RUN}.1.{number}"
                event = json.dumps({"t": "decision.made", "tenant": "default", "run": RUN, "gen": 1, "decision": name})
                began = time.perf_counter()
                assert kernel.state.decide(RUN, 1, number, "{}", "", order.to_json(), event)
                carry_out(kernel, f"{RUN}.1", "default", name, order)
                if number > 1:  # the first one teaches Redis the scripts
                    took.append((time.perf_counter() - began) * 1000)
            app.close()
            engine.dispose()
        finally:
            server.stop()
    return {"nodes": NODES, "wall_ms": asdict(Spread.of(took))}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench verdicts", description="How long a decision on 10,000 pending nodes takes to apply.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.rounds <= 100:
        parser.error("--rounds is from 1 to 100")
    results = {"commit": harness.commit(), "machine": harness.machine(), "rounds": chosen.rounds, **measure(chosen.rounds)}
    results["machine"]["load_after"] = round(os.getloadavg()[0], 1)
    wall = Spread(**results["wall_ms"])
    met = wall.median < PROMISED_MS
    print(f"{NODES} verdicts applied in {wall:.0f} ms; promised {PROMISED_MS} ms: {'met' if met else 'MISSED'}")
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if met else 1
