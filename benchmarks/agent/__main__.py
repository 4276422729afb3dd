"""`./dev bench agent`: the same load with the cost agent and without it; every required node must finish with it, within the limits.

Each side runs on a stack of its own, with the stock schedule; its figures are written as it ends, so a second call goes on with the
other one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.agent.load import PERCENT, TENANTS, Load, loads
from cost.money import format_units
from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.handle import RunHandle
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.submission import Submission
from tenancy.errors import BudgetRefused

MODULE = "benchmarks.agent.tasks"
WORKERS, SLOTS = 3, 6
RUN_S = 600.0
SIDES = ("with", "without")


def play(home: Path, *, agent: bool) -> dict[str, Any]:
    """Run the load once on a stack of its own; return its figures."""
    settings = Settings(home=home, tasks=(MODULE,))
    with Stack(settings, WORKERS, SLOTS, (MODULE,), console=False) as running:
        client = Client(settings.model_copy(update={"redis_url": running.redis_url}))
        if not agent:
            client.pause("agent", reason="the other side of the benchmark", by="bench")
        every = list(loads())
        for load in every:
            client.tenants.create(load.tenant, limit_per_day_micros=load.limit, max_concurrent_runs=10)
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            submitted = list(pool.map(lambda load: [_submitted(client, load.tenant, graph) for graph in load.graphs], every))
        tenants = [_told(client, load, runs) for load, runs in zip(every, submitted, strict=True)]
        took_s = time.monotonic() - began
        decisions = Counter(f"{each.trigger} {each.action}" for each in client.decisions())
        client.engine.dispose()
        client.kernel.link.close()
    return {"took_s": round(took_s, 1), "decisions": dict(sorted(decisions.items())), "tenants": tenants}


def _submitted(client: Client, tenant: str, graph: Any) -> RunHandle | None:
    try:
        return client.submit(graph, tenant=tenant)
    except BudgetRefused:
        return None


def _told(client: Client, load: Load, runs: list[RunHandle | None]) -> dict[str, Any]:
    """Wait for a tenant's runs, and say what became of them."""
    found = []
    for graph, run in zip(load.graphs, runs, strict=True):
        required = {node.id for node in graph.nodes if node.required}
        worth = sum(node.value for node in graph.nodes)
        if run is None:
            found.append({"outcome": "refused", "required": len(required), "required_done": 0, "worth": worth, "kept": 0, "cost": 0})
            continue
        run.wait(RUN_S)
        nodes = read.get_nodes(client.engine, run.run_id)
        done = {node.id for node in nodes if node.outcome == "succeeded"}
        kept = sum(_kept(graph.by_id[node.id], node.verdict) for node in nodes if node.id in done)
        told = {"outcome": str(run.outcome), "required": len(required), "required_done": len(required & done), "worth": worth, "kept": kept}
        found.append({**told, "cost": run.cost_micros, "given_up": sum(bool(n.verdict) or n.outcome == "skipped" for n in nodes)})
    estimate = sum(Submission.of(graph, client.settings).estimate_micros for graph in load.graphs)
    spent = client.tenants.usage(load.tenant).settled_micros
    told = {"tenant": load.tenant, "kind": load.kind, "limit": load.limit, "projected": load.projected, "estimate": estimate}
    return {**told, "spent": spent, "runs": found}


def _kept(node: Any, verdict: str | None) -> int:
    return next((variant.value for variant in node.variants if variant.name == verdict), node.value)


def summary(side: dict[str, Any]) -> dict[str, Any]:
    """Return the figures over all tenants of a side."""
    runs = [run for tenant in side["tenants"] for run in tenant["runs"]]
    return {
        "tenants": len(side["tenants"]),
        "runs": len(runs),
        "outcomes": dict(sorted(Counter(run["outcome"] for run in runs).items())),
        "complete": sum(run["required_done"] == run["required"] for run in runs),
        "required": sum(run["required"] for run in runs),
        "required_done": sum(run["required_done"] for run in runs),
        "value_kept": round(sum(run["kept"] for run in runs) / sum(run["worth"] for run in runs), 4),
        "over_limit": sum(tenant["spent"] > tenant["limit"] for tenant in side["tenants"]),
        "spent_of_limit": round(sum(t["spent"] for t in side["tenants"]) / sum(t["limit"] for t in side["tenants"]), 4),
        "took_s": side["took_s"],
        "decisions": side["decisions"],
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench agent", description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the results; a side that is in it is not played again")
    chosen = parser.parse_args(arguments)
    known = json.loads(chosen.json.read_text()) if chosen.json and chosen.json.exists() else {}
    results = {"commit": harness.commit(), "machine": harness.machine(), "percent": PERCENT, "sides": {}, **known}
    for side in SIDES:
        if side not in results["sides"]:
            with tempfile.TemporaryDirectory(prefix="hg-bench-", ignore_cleanup_errors=True) as place:
                results["sides"][side] = play(Path(place), agent=side == "with")
            if chosen.json:
                chosen.json.write_text(json.dumps(results, indent=1) + "\n")
    figures = {side: summary(results["sides"][side]) for side in SIDES}
    print(f"{TENANTS} tenants with {PERCENT} % of what their runs are projected to cost")
    for side, found in figures.items():
        print(
            f"{side:8} the agent: {found['complete']} of {found['runs']} runs have all their required nodes, {found['outcomes']}, ", end=""
        )
        print(f"value kept {found['value_kept']:.1%}, {found['over_limit']} tenants over their limit, {found['took_s']} s")
    spent = {side: format_units(sum(t["spent"] for t in results["sides"][side]["tenants"])) for side in SIDES}
    print(f"spent: {spent}; decisions with the agent: {figures['with']['decisions']}")
    met = figures["with"]["complete"] == figures["with"]["runs"] and figures["without"]["complete"] < figures["without"]["runs"]
    print(f"promised: with the agent all runs, without it not all: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
