"""`./dev bench plan [--rounds N] [--json FILE]`: how long it takes to plan 1,000 and 10,000 pending nodes with four choices each.

A plan is made by one thread that waits for nothing, so its CPU time is what it takes on a core of its own, and what is compared with the
promise; wall time on a machine with other work is told beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Spread
from benchmarks.plans.graphs import edges
from cost.plan import NodeCost, VariantCost, floor, plan_down

PROMISED_MS = {1_000: 150, 10_000: 1_000}
SHAPES = ("random", "layers", "branches", "chains")


def graph(shape: str, count: int, seed: int) -> list[NodeCost]:
    """Half the nodes are optional; each can be as it is, one of two or three variants, or, if it is optional, skipped."""
    dice = random.Random(f"{shape}.{count}.{seed}")
    children: list[list[str]] = [[] for _ in range(count)]
    for parent, child in edges(shape, count, dice):
        children[parent].append(f"n{child:05d}")
    nodes = []
    for index in range(count):
        required, estimate, value = dice.random() < 0.5, dice.randint(100, 10_000), dice.randint(1, 1_000)
        shares = [dice.uniform(0.05, 0.95) for _ in range(3 if required else 2)]
        variants = [
            VariantCost(f"v{place}", "variant", round(estimate * share), round(value * share ** dice.uniform(0.2, 1.2)))
            for place, share in enumerate(shares)
        ]
        nodes.append(NodeCost(f"n{index:05d}", required, value, estimate, None, variants, children[index]))
    return nodes


def measure(shape: str, count: int, rounds: int) -> dict[str, Any]:
    """Plan a graph anew in each round, for half of what lies between its floor and its estimate."""
    wall, cpu, kept = [], [], []
    for seed in range(rounds):
        nodes = graph(shape, count, seed)
        least, full = floor(nodes), sum(node.estimate_micros for node in nodes)
        began, used = time.perf_counter(), time.process_time()
        plan = plan_down(nodes, (least + full) // 2)
        wall.append((time.perf_counter() - began) * 1000)
        cpu.append((time.process_time() - used) * 1000)
        kept.append(plan.value / plan.bound)
    return {"wall_ms": asdict(Spread.of(wall)), "cpu_ms": asdict(Spread.of(cpu)), "kept_of_bound": asdict(Spread.of(kept))}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench plan", description="How long plans of 1,000 and 10,000 pending nodes take.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.rounds <= 100:
        parser.error("--rounds is from 1 to 100")
    results: dict[str, Any] = {"commit": harness.commit(), "machine": harness.machine(), "rounds": chosen.rounds, "plans": {}}
    used = time.process_time()
    importlib.import_module("scipy.optimize")  # paid once by each process that asks HiGHS, and counted by itself
    results["import_cpu_ms"] = (time.process_time() - used) * 1000
    print(f"scipy is imported in {results['import_cpu_ms']:.0f} ms of CPU, once a process, by the first plan that needs HiGHS")
    measure("random", 1_000, 1)
    missed = False
    for count, promised in PROMISED_MS.items():
        for shape in SHAPES:
            found = results["plans"][f"{count} {shape}"] = measure(shape, count, chosen.rounds)
            wall, cpu, kept = (Spread(**found[name]) for name in ("wall_ms", "cpu_ms", "kept_of_bound"))
            met = cpu.median < promised
            missed = missed or not met
            verdict = "met" if met else "MISSED"
            print(
                f"{count:6} {shape:9} CPU {cpu:.0f} ms, wall {wall:.0f} ms, {kept:.4f} of the bound; promised {promised} ms: {verdict}",
                flush=True,
            )
    results["machine"]["load_after"] = round(os.getloadavg()[0], 1)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if missed else 0
