"""`python -m benchmarks [WORKLOAD ...] [--rounds N] [--json FILE] [--profile]`: Headgate beside stock Celery, in one invocation."""

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

from benchmarks import harness, profiling
from benchmarks.agent.__main__ import main as agent
from benchmarks.console.__main__ import main as console
from benchmarks.fan import WORKLOADS, Workload
from benchmarks.money.cost import main as money
from benchmarks.plans.speed import main as plan
from benchmarks.retention import main as retention
from benchmarks.transport.__main__ import main as transport
from benchmarks.verdicts import main as verdicts
from benchmarks.width import main as width

OTHERS = {
    "transport": transport,
    "money": money,
    "plan": plan,
    "agent": agent,
    "console": console,
    "retention": retention,
    "verdicts": verdicts,
    "width": width,
}
"""Those with options of their own: they measure one thing, and not beside stock Celery."""


def run(workloads: list[Workload], rounds: int) -> dict[str, Any]:
    """Measure every workload on both systems, one round of each in turn; return the results as JSON has them."""
    results: dict[str, Any] = {"commit": harness.commit(), "machine": harness.machine(), "rounds": rounds, "workloads": {}}
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as place, contextlib.ExitStack() as stack:
        ours = stack.enter_context(harness.OurSystem(Path(place) / "ours"))
        stock = stack.enter_context(harness.StockSystem(Path(place) / "stock"))
        for workload in workloads:
            for system in (ours, stock):
                system.ask(workload)  # the first one fills caches and is not counted
            for number in range(rounds):
                for system in (ours, stock) if number % 2 else (stock, ours):
                    system.rounds[workload.name].append(system.measure(workload))
                print(f"{workload.name} round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            counted = {system.name: system.count(workload, harness.script_names()) for system in (ours, stock)}
            results["workloads"][workload.name] = report(workload, ours, stock, counted)
    results["machine"]["load_after"] = round(os.getloadavg()[0], 1)
    return results


def report(workload: Workload, ours: harness.System, stock: harness.System, counted: dict[str, Any]) -> dict[str, Any]:
    """Print one workload's figures and return them."""
    a, b = ours.rounds[workload.name], stock.rounds[workload.name]
    cpu = [[sum(r.cpu_us.values()) for r in side] for side in (a, b)]
    rows = (
        ("submitted, s", [r.submitted_s for r in a], [r.submitted_s for r in b], ".3f"),
        ("last node ended, s", [r.ended_s for r in a], [r.ended_s for r in b], ".3f"),
        ("known to the producer, s", [r.done_s for r in a], [r.done_s for r in b], ".3f"),
        ("nodes a second", [workload.nodes / r.done_s for r in a], [workload.nodes / r.done_s for r in b], ".0f"),
        ("round trips a node", [r.trips for r in a], [r.trips for r in b], ".2f"),
        ("commands inside Redis a node", [r.commands for r in a], [r.commands for r in b], ".1f"),
        ("bytes to Redis a node", [r.bytes_in for r in a], [r.bytes_in for r in b], ".0f"),
        ("bytes from Redis a node", [r.bytes_out for r in a], [r.bytes_out for r in b], ".0f"),
        ("in scripts, us a node", [r.redis_us for r in a], [r.redis_us for r in b], ".0f"),
        ("CPU in all, us a node", cpu[0], cpu[1], ".0f"),
        *((f"CPU {role}, us a node", [r.cpu_us[role] for r in a], [r.cpu_us.get(role, 0.0) for r in b], ".0f") for role in a[0].cpu_us),
    )
    print(f"\n{workload.name} of {workload.nodes}: median (least-greatest) of {len(a)} rounds; ratio = stock / headgate, above 1 is won")
    print(f"{'':32}{'headgate':>24}{'stock Celery':>24}{'ratio':>20}")
    for title, left, right, how in rows:
        ratio = f"{harness.ratios(left, right):.2f}" if all(left) and all(right) else ""
        if title == "nodes a second":
            ratio = ""  # the times above say it
        print(f"{title:32}{format(harness.Spread.of(left), how):>24}{format(harness.Spread.of(right), how):>24}{ratio:>20}")
    for name, costs in counted.items():
        print(
            f"  {name}, commands sent: "
            + ", ".join(f"{k} {c.per_node:.2f} x {c.us_each:.0f} us" for k, c in costs.items() if c.per_node > 0.01)
        )
    return {
        "nodes": workload.nodes,
        "headgate": harness.summary(a),
        "stock": harness.summary(b),
        "ratio_done": asdict(harness.ratios([r.done_s for r in a], [r.done_s for r in b])),
        "ratio_ended": asdict(harness.ratios([r.ended_s for r in a], [r.ended_s for r in b])),
        "ratio_cpu": asdict(harness.ratios(*cpu)),
        "sent": {name: {k: asdict(c) for k, c in costs.items()} for name, costs in counted.items()},
    }


def main() -> None:
    if sys.argv[1:2] and (other := OTHERS.get(sys.argv[1])):
        sys.exit(other(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help=f"{', '.join(WORKLOADS)}; all if none; or one of {', '.join(OTHERS)}",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--profile", action="store_true", help="profile our worker instead, by cProfile")
    chosen = parser.parse_args()
    if unknown := set(chosen.workloads) - set(WORKLOADS):
        parser.error(f"there is no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    workloads = [WORKLOADS[name] for name in chosen.workloads or WORKLOADS]
    if not 1 <= chosen.rounds <= 100:
        parser.error("--rounds is from 1 to 100")
    if chosen.profile:
        profiling.profile(workloads[0])
        return
    results = run(workloads, chosen.rounds)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
