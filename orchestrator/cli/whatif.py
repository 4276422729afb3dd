"""The verb whatif: what less money would buy, planned and not run."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import as_json, print_json, say
from orchestrator.cli.words import BUDGET, TASKS
from tenancy.errors import Unavailable

if TYPE_CHECKING:
    from cost.plan import PlanDown
    from cost.whatif import Prospects
    from orchestrator.graph import Graph, Node
    from orchestrator.submission import Submission

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_LABEL_CHARS = 30
_NAMED = 3
"""Skipped nodes are named up to so many; above, they are counted."""

_BAR = 40


@click.command()
@click.argument("target")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--tenant", default="default", show_default=True, metavar="ID", help="Who would pay.")
@click.option("--budget", type=BUDGET, metavar="UNITS", help="A budget to plan for beside the others, such as 0.06.")
@click.option("--tasks", type=TASKS, default=(), metavar="MODULE", help="Modules with the tasks of a graph in JSON.")
@as_json
def whatif(target: str, parameters: tuple[str, ...], tenant: str, budget: str | None, tasks: tuple[str, ...], as_json: bool) -> None:
    """Say what would be given up for less money, down to what is required; nothing runs.

    TARGET and NAME=VALUE as for `run`. Costs are those of `estimate`. Where a stack runs, what the tenant has left is planned for too.
    """
    from cost.money import parse_units
    from cost.whatif import prospects
    from orchestrator.cli.estimate import learned_of, standing_of
    from orchestrator.cli.service import recorded, runs
    from orchestrator.cli.target import load_resolved
    from orchestrator.settings import Settings
    from orchestrator.store.read import get_tenant
    from orchestrator.submission import Submission

    settings = Settings.load()
    resolved, _ = load_resolved(target, parameters, tasks, settings)
    strict = False
    with suppress(Unavailable):
        strict = get_tenant(recorded(settings).engine, tenant).policy.strict
    submission = Submission.of(resolved, settings, learned=learned_of(settings, resolved, tenant), strict=strict)
    given = parse_units(budget) if budget is not None else None
    if runs(settings) and (room := standing_of(settings, tenant).room_micros) < submission.estimate_micros:
        say(f"tenant {tenant} has {_units(room, 0)} left, so that is the most that the run gets now")
        given = room if given is None else min(given, room)
    found = prospects(submission.costs, given)
    if as_json:
        print_json(facts(submission, tenant, found))
    else:
        click.echo("\n".join((*table(submission.graph, found), "", *curve(found))))


def facts(submission: Submission, tenant: str, found: Prospects) -> dict[str, Any]:
    """Return what `whatif --json` prints: micros, and nodes by id."""
    rows = [
        {
            "budget_micros": row.budget,
            "cost_micros": row.plan.cost_micros,
            "value": row.plan.value,
            "bound": row.plan.bound,
            "exact": row.plan.exact,
            "given_up": [
                {"node": m.node, "type": m.type, "change": m.change, "saving_micros": m.estimated_saving_micros}
                for m in row.plan.modifications
            ],
        }
        for row in found.rows
    ]
    return {
        "graph": submission.graph.name,
        "tenant": tenant,
        "floor_micros": found.floor,
        "value": found.value,
        "rows": rows,
        "curve": [{"budget_micros": budget, "value": value} for budget, value in found.curve],
    }


def table(graph: Graph, found: Prospects) -> list[str]:
    """Return the lines of the table, dearest first, and what is refused."""
    amounts = [found.floor, *(amount for row in found.rows for amount in (row.budget, row.plan.cost_micros))]
    places = max(map(_decimals, amounts))
    floor = _units(found.floor, places)
    rows = [("budget", "cost", "value", "given up")]
    for row in found.rows:
        value = f"{row.plan.value}/{found.value}"
        rows.append((_units(row.budget, places), _units(row.plan.cost_micros, places), value, given_up(graph, row.plan)))
    last = f"< {floor}"
    widths = [max(len(last), *(len(row[0]) for row in rows)), *(max(len(row[column]) for row in rows) for column in (1, 2)), 0]
    lines = [" " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if found.floor:
        lines.append(f" {last.ljust(widths[0])}  refused: the required nodes alone cost {floor}")
    return lines


def curve(found: Prospects) -> list[str]:
    """Return the curve of value against budget, a bar for each budget."""
    places = max(_decimals(budget) for budget, _ in found.curve)
    width = max(len(_units(budget, places)) for budget, _ in found.curve)
    return [
        f" {_units(budget, places).rjust(width)}  {'#' * (_BAR * value // found.value if found.value else 0):{_BAR}}  {value}"
        for budget, value in found.curve
    ]


def given_up(graph: Graph, plan: PlanDown) -> str:
    """Return what a plan gives up in a person's words: nodes of one task that are changed alike are counted."""
    by_id = graph.by_id
    skipped = [by_id[m.node] for m in plan.modifications if m.type == "skip"]
    changed = Counter((_short(by_id[m.node].task), _change(by_id[m.node], m.change)) for m in plan.modifications if m.type != "skip")
    said = [f"{', '.join(label(graph, node) for node in skipped)} skipped"] if 0 < len(skipped) <= _NAMED else []
    if len(skipped) > _NAMED:
        said += [f"{_counted(count, task)} skipped" for task, count in sorted(Counter(_short(node.task) for node in skipped).items())]
    said += [f"{_counted(count, task)} -> {change}" for (task, change), count in sorted(changed.items())]
    return ", ".join(said) or "nothing"


def label(graph: Graph, node: Node) -> str:
    """Return what tells a node from the others of its task: the first of its parameters that is a short text of its own, else its id."""
    others = [each.params for each in graph.nodes if each.task == node.task and each.id != node.id]
    for name, value in node.params.items():
        if others and isinstance(value, str) and 0 < len(value) <= _LABEL_CHARS and all(params.get(name) != value for params in others):
            return value
    return node.id


def _change(node: Node, name: str) -> str:
    """A variant in words: `one candidate` where it sets `candidates` to 1, else what it is called."""
    variant = next(each for each in node.variants if each.name == name)
    if not variant.task and len(variant.params) == 1:
        ((parameter, value),) = variant.params.items()
        if type(value) is int and 0 <= value < len(_NUMBERS) and parameter.isalpha() and parameter.endswith("s"):
            return f"{_NUMBERS[value]} {parameter.removesuffix('s') if value == 1 else parameter}"
    return name


def _short(task: str) -> str:
    return task.rpartition(".")[2]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _decimals(micros: int) -> int:
    return len(f"{micros % 1_000_000:06}".rstrip("0"))


def _units(micros: int, places: int) -> str:
    whole, rest = divmod(micros, 1_000_000)
    digits = f"{rest:06}"[: max(places, _decimals(micros))]
    return f"{whole}.{digits}" if digits else str(whole)
