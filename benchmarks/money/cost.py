"""`./dev bench money [--rounds N] [--nodes N] [--json FILE]`: what reserving and settling cost, beside the same workers without.

Both systems are Headgate with a Redis, a recorder, beat and one worker of two processes each, and run the same fan of no-ops in
alternating rounds. In the second one `benchmarks.money.off` is loaded: the gate sets nothing aside and no signal settles.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.fan import Workload
from benchmarks.harness import OurSystem, Round, Spread

PROMISED = 0.15
"""Reserve and settle cost less than this part of the nodes a second."""


def shares(on: list[float], off: list[float]) -> Spread:
    """Return by how much less a second is done with money, pair by pair; arguments are seconds, or microseconds of CPU, of rounds."""
    return Spread.of(1 - without / with_money for with_money, without in zip(on, off, strict=True))


def run(nodes: int, rounds: int) -> dict[str, Any]:
    """Measure both, one round of each in turn; return the results as JSON has them."""
    results: dict[str, Any] = {"commit": harness.commit(), "machine": harness.machine(), "rounds": rounds, "nodes": nodes}
    workload = Workload("group", "group", nodes)
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as place, contextlib.ExitStack() as stack:
        on = stack.enter_context(OurSystem(Path(place) / "on"))
        off = stack.enter_context(OurSystem(Path(place) / "off", tasks=("benchmarks.money.off",)))
        for system in (on, off):
            system.ask(workload)  # the first one fills caches and is not counted
        check(on, off)
        found: tuple[list[Round], list[Round]] = ([], [])
        for number in range(rounds):
            for at in (0, 1) if number % 2 else (1, 0):
                found[at].append((on, off)[at].measure(workload))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    results["machine"]["load_after"] = round(os.getloadavg()[0], 1)
    for name, rows in (("with money", found[0]), ("without", found[1])):
        results[name] = harness.summary(rows) | {"nodes_per_s": asdict(Spread.of(nodes / row.ended_s for row in rows))}
    times = [[row.ended_s for row in rows] for rows in found]
    cpu = [[sum(row.cpu_us.values()) for row in rows] for rows in found]
    in_redis = [[row.redis_us for row in rows] for rows in found]
    results["share"] = {"of throughput": asdict(shares(*times)), "of CPU": asdict(shares(*cpu)), "in scripts": asdict(shares(*in_redis))}
    return results


def check(on: harness.System, off: harness.System) -> None:
    """One of them settles, and the other does not; else there is nothing to compare. Raises RuntimeError."""
    settled = [int(str(system.client.hget("hg1:settled_by", "signal") or 0)) for system in (on, off)]
    if settled[0] == 0 or settled[1] != 0:
        raise RuntimeError(f"settled by signals: {settled[0]} with money, {settled[1]} without")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench money", description="What reserving and settling cost of the nodes a second.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.rounds <= 100 or not 10 <= chosen.nodes <= 10_000:
        parser.error("--rounds is from 1 to 100, --nodes from 10 to 10000")
    results = run(chosen.nodes, chosen.rounds)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")
    for name in ("with money", "without"):
        rate = Spread(**results[name]["nodes_per_s"])
        print(f"{name:12} {rate:.0f} nodes/s, {results[name]['redis_us']['median']:.0f} us a node in scripts")
    for name, share in results["share"].items():
        print(f"{name:14} {Spread(**share):.3f}")
    met = results["share"]["of throughput"]["median"] < PROMISED
    print(f"promised: less than {PROMISED:.2f} of the throughput: {'met' if met else 'MISSED'}")
    return 0 if met else 1
