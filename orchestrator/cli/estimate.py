"""The verb estimate: what a run will cost, and what its tenant's limits would make of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import as_json, money, print_fields, print_json, print_table, say
from orchestrator.cli.words import BUDGET, TASKS, quality
from tenancy.errors import Unavailable

if TYPE_CHECKING:
    from cost.estimate import Means, Prospect, Standing
    from orchestrator.graph import Graph
    from orchestrator.settings import Settings
    from orchestrator.submission import Submission

NODES_SHOWN = 20


@click.command()
@click.argument("target")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--tenant", default="default", show_default=True, metavar="ID", help="Who would pay.")
@click.option("--budget", type=BUDGET, metavar="UNITS", help="The most that the run may cost, such as 0.06.")
@click.option("--tasks", type=TASKS, default=(), metavar="MODULE", help="Modules with the tasks of a graph in JSON.")
@quality
@as_json
def estimate(
    target: str, parameters: tuple[str, ...], tenant: str, budget: str | None, tasks: tuple[str, ...], quality: str, as_json: bool
) -> None:
    """Say what a run would cost before it runs, and whether its tenant's limits would let it.

    TARGET and NAME=VALUE as for `run`. A node costs what it declares, else what its task cost the tenant lately, else 0.001. Without a
    stack the graph's own numbers are all there is.
    """
    from cost.money import parse_units
    from orchestrator.cli.service import runs
    from orchestrator.cli.target import load_resolved
    from orchestrator.settings import Settings
    from orchestrator.submission import Submission

    settings = Settings.load()
    resolved, unknown = load_resolved(target, parameters, tasks, settings)
    if unknown:
        say(f"not known here, so estimated only as far as the graph or the record says: {', '.join(unknown)} (--tasks MODULE loads them)")
    submission = Submission.of(resolved, settings, learned=learned_of(settings, resolved, tenant))
    standing = standing_of(settings, tenant) if runs(settings) else None
    found = facts(submission, tenant, standing, parse_units(budget) if budget is not None else None, full=quality == "full")
    if as_json:
        print_json(found)
    else:
        _print(found)


def facts(
    submission: Submission, tenant: str, standing: Standing | None, budget_micros: int | None, *, full: bool = False
) -> dict[str, Any]:
    """Return what `estimate --json` prints: micros. `remains` and `prospect` are None where no stack runs."""
    from cost.estimate import foresee

    by_category: dict[str, int] = {}
    nodes = []
    for node in submission.graph.nodes:
        known = submission.estimates[node.id]
        cats = {category: node.width * micros for category, micros in known.cats.items()}
        for category, micros in cats.items():
            by_category[category] = by_category.get(category, 0) + micros
        own = {"id": node.id, "task": node.task, "required": node.required, "micros": node.width * known.micros}
        nodes.append({**own, "by_category": cats, "source": known.source} | ({} if node.map is None else {"items": node.width}))
    total, floor = submission.estimate_micros, submission.floor_micros
    prospect = None if standing is None else foresee(total, floor, standing, budget_micros, full=full)
    return {
        "graph": submission.graph.name,
        "tenant": tenant,
        "estimate_micros": total,
        "floor_micros": floor,
        "budget_micros": budget_micros,
        "by_category": {category: micros for category, micros in sorted(by_category.items()) if micros},
        "nodes": nodes,
        "remains": None if standing is None else {**asdict(standing), "room_micros": standing.room_micros},
        "prospect": None if prospect is None else {**prospect._asdict(), "given_up": _given_up(submission, prospect)},
    }


def _given_up(submission: Submission, prospect: Prospect) -> list[dict[str, Any]]:
    down = submission.planned_down(prospect.hold_micros) if prospect.decision == "planned_down" else None
    changes = down.modifications if down is not None else ()
    return [{"node": m.node, "type": m.type, "change": m.change, "saving_micros": m.estimated_saving_micros} for m in changes]


def learned_of(settings: Settings, graph: Graph, tenant: str) -> Means:
    """Return what the record knows of the tasks; nothing where there is none."""
    from orchestrator.cli.service import recorded
    from orchestrator.store.learned import learned_means

    with suppress(Unavailable):
        return learned_means(recorded(settings).engine, tenant, graph.tasks())
    return {}


def standing_of(settings: Settings, tenant: str) -> Standing:
    """Return what a running stack knows of a tenant's limits."""
    from cost.estimate import Standing
    from orchestrator.cli.service import running

    client = running(settings)
    usage, found = client.tenants.usage(tenant), client.tenants.get(tenant)
    return Standing(
        limit_micros=usage.limit_per_day_micros,
        exposure_micros=usage.exposure_micros,
        committed_micros=usage.settled_micros + usage.reserved_micros,
        running=usage.running_runs,
        max_runs=usage.max_concurrent_runs,
        waiting=usage.waiting_runs,
        max_waiting=found.policy.max_waiting_runs,
        status=found.status,
        on_runs_limit=found.policy.on_runs_limit,
        on_budget_limit=found.policy.on_budget_limit,
        limit_month_micros=usage.limit_per_month_micros,
        month_exposure_micros=usage.month_settled_micros + usage.month_reserved_micros + usage.held_micros,
        month_committed_micros=usage.month_settled_micros + usage.month_reserved_micros,
        admit=found.policy.admit,
    )


def _print(found: dict[str, Any]) -> None:
    remains, prospect = found["remains"], found["prospect"]
    print_fields(
        {
            "graph": found["graph"],
            "estimate": money(found["estimate_micros"]),
            **{f"  {category}": money(micros) for category, micros in found["by_category"].items()},
            "floor": f"{money(found['floor_micros'])} for what is required, in its cheapest variants",
            "remains": _remains(remains),
            "prospect": "no stack runs, so only the graph is known" if prospect is None else _prospect(prospect),
        }
    )
    nodes = sorted(found["nodes"], key=lambda node: (-node["micros"], node["id"]))
    rows = [(node["id"], node["task"], str(money(node["micros"])), node["source"]) for node in nodes[:NODES_SHOWN]]
    print_table(("node", "task", "cost", "is"), rows)
    if len(nodes) > NODES_SHOWN:
        click.echo(f"and {len(nodes) - NODES_SHOWN} more that cost no more (--json shows all)")


def _remains(remains: dict[str, Any] | None) -> str | None:
    if remains is None:
        return None
    left = f"{money(remains['room_micros'])} of {money(remains['limit_micros'])} today"
    if (month := remains["limit_month_micros"]) is not None:
        left += f" and {money(month)} this month"
    return f"{left}; {max(0, remains['max_runs'] - remains['running'])} of {remains['max_runs']} runs"


def _prospect(prospect: dict[str, Any]) -> str:
    given_up = ", ".join(f"{change['node']} ({change['change']})" for change in prospect["given_up"][:10])
    return f"{prospect['decision'].replace('_', ' ')}: {prospect['reason']}" + (f": {given_up}" if given_up else "")
