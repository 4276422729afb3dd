"""Verbs that read the record: runs, show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from orchestrator.cli.output import as_json, at, between, cause, money, print_fields, print_json, print_table, seconds
from orchestrator.cli.words import RUN


@click.command()
@click.option("--tenant", help="Only this tenant's.")
@click.option("--status", type=click.Choice(["submitted", "held", "running", "cancelling", "ended", "refused"]))
@click.option("--outcome", type=click.Choice(["succeeded", "degraded", "failed", "cancelled", "terminated_by_cost"]))
@click.option("--graph", help="Only runs of the graph of this name.")
@click.option("--key", help="Only runs submitted with this key.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@as_json
def runs(
    tenant: str | None, status: str | None, outcome: str | None, graph: str | None, key: str | None, limit: int, as_json: bool
) -> None:
    """List runs, newest first."""
    from orchestrator.cli.held import standing
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings
    from orchestrator.store.read import list_runs

    engine = recorded(Settings.load()).engine
    found = list_runs(engine, tenant=tenant, status=status, outcome=outcome, graph=graph, key=key, limit=limit)
    if as_json:
        print_json([{**asdict(run), "counts": dict(run.counts), "labels": dict(run.labels)} for run in found])
        return
    rows = [
        (
            run.run_id,
            run.graph,
            run.tenant,
            standing(run),
            at(run.submitted_at),
            seconds(between(run.submitted_at, run.finished_at)),
            money(run.cost_micros) or "-",
        )
        for run in found
    ]
    print_table(("run", "graph", "tenant", "outcome", "submitted", "took", "cost"), rows)


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@as_json
def show(run_id: str, as_json: bool) -> None:
    """Show a run with all of its nodes.

    RUN is the id of a run, the beginning of one, or `latest`.
    """
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings
    from orchestrator.store.read import show_json

    engine = recorded(Settings.load()).engine
    run = show_json(engine, find_run(engine, run_id))
    if as_json:
        print_json(run)
        return
    print_fields(
        {
            "run": run["run_id"],
            "generation": run["generation"] if run["generation"] > 1 else None,
            "graph": run["graph"],
            "tenant": run["tenant"],
            "key": run["key"],
            "outcome": run["outcome"] or run["status"],
            "reason": run["reason"],
            "submitted": at(run["submitted_at"]),
            "took": seconds(between(run["submitted_at"], run["finished_at"])),
            "cost": " ".join(
                [str(money(run["cost_micros"])), *(f"{category} {money(micros)}" for category, micros in sorted(run["cost"].items()))]
            ),
            "budget": money(run["budget"]),
            "estimate": money(run["estimate"]),
        }
    )
    click.echo()
    rows = [
        (
            node["id"],
            node["task"] or "?",
            node["outcome"] or node["state"],
            str(node["attempt"] or "-"),
            node["worker"] or "-",
            seconds(between(node["queued_at"], node["started_at"])),
            seconds(between(node["started_at"], node["finished_at"])),
            money(node["cost_micros"]) or "-",
            "; ".join(filter(None, (_adopted(node), node["verdict"] and f"as {node['verdict']!r}", node["reason"], cause(node["error"])))),
        )
        for node in run["nodes"]
    ]
    print_table(("node", "task", "outcome", "attempt", "worker", "waited", "took", "cost", "remarks"), rows)


def _adopted(node: Mapping[str, Any]) -> str | None:
    return f"adopted from generation {node['adopted']}" if node["adopted"] else None
