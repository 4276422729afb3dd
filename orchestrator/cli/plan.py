"""Verbs that need no stack: plan, schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import as_json, money, print_fields, print_json, say
from orchestrator.cli.words import TASKS

if TYPE_CHECKING:
    from orchestrator.submission import Submission


@click.command()
@click.argument("target")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--tasks", type=TASKS, default=(), metavar="MODULE", help="Modules with the tasks of a graph in JSON.")
@as_json
def plan(target: str, parameters: tuple[str, ...], tasks: tuple[str, ...], as_json: bool) -> None:
    """Say how a graph would be run, without running it.

    TARGET and NAME=VALUE as for `run`. Fragments are what travels in one Celery chain or chord; joins are what Headgate counts itself.
    """
    from orchestrator.cli.target import limits_of, load_target
    from orchestrator.loading import load_tasks
    from orchestrator.registry import registry
    from orchestrator.settings import Settings
    from orchestrator.submission import Submission

    settings = Settings.load()
    graph = load_target(target, parameters, tasks, settings).graph
    load_tasks((*settings.tasks, *tasks))
    resolved = graph.resolved(registry)
    named = {node.task for node in resolved.nodes} | {variant.task for node in resolved.nodes for variant in node.variants if variant.task}
    unknown = sorted(named - set(registry.names()))
    resolved.check(registry=registry, served=unknown, limits=limits_of(settings))
    if unknown:
        say(f"not known here, so estimated and checked only as far as the graph says: {', '.join(unknown)} (--tasks MODULE loads them)")
    found = facts(Submission.of(resolved, settings))
    if as_json:
        print_json(found)
    else:
        print_fields(_for_people(found))


def facts(submission: Submission) -> dict[str, Any]:
    """Return what `plan --json` prints: counts, bytes (estimated), micros."""
    s = submission.plan.statistics
    largest = s.largest_message
    return {
        "graph": submission.graph.name,
        "nodes": s.nodes,
        "edges": s.edges_given,
        "edges_reduced": s.edges_reduced,
        "fragments": dict(s.fragments),
        "chords": s.chords,
        "groups": s.groups,
        "joins": s.joins,
        "critical_path": list(s.critical_path),
        "critical_path_nodes": s.critical_path_length,
        "levels": s.levels,
        "widest_level": s.widest_level,
        "largest_message": None if largest is None else largest._asdict(),
        "messages_bytes": s.bytes_all,
        "carried": s.carried,
        "carried_share": s.carried_share,
        "estimate_micros": submission.estimate_micros,
        "floor_micros": submission.floor_micros,
    }


def _for_people(found: dict[str, Any]) -> dict[str, object]:
    path, largest = found["critical_path"], found["largest_message"]
    shown = path if len(path) <= 8 else [*path[:4], "...", *path[-3:]]
    fragments = ", ".join(f"{count} {kind}{'s' if count != 1 else ''}" for kind, count in found["fragments"].items() if count)
    return {
        "graph": found["graph"],
        "nodes": found["nodes"],
        "edges": f"{found['edges']}, {found['edges_reduced']} without those that others imply",
        "fragments": f"{sum(found['fragments'].values())}: {fragments}",
        "chords": f"{found['chords']} joins carried by Celery",
        "groups": f"{found['groups']} fans carried by Celery" if found["groups"] else None,
        "joins": f"{found['joins']} counted by Headgate",
        "critical path": f"{found['critical_path_nodes']} nodes: {' > '.join(shown)}",
        "widest level": f"{found['widest_level']} nodes of {found['levels']} levels",
        "largest message": None if largest is None else f"{largest['bytes']} bytes, {largest['nodes']} nodes, of {largest['node']}",
        "carried by canvas": f"{found['carried_share']:.0%} of the edges",
        "estimate": f"{money(found['estimate_micros'])}, at least {money(found['floor_micros'])}",
    }


@click.command()
@as_json
def schema(as_json: bool) -> None:
    """Print the JSON Schema of a graph; it is JSON either way."""
    del as_json
    from orchestrator.graph import Graph

    print_json(Graph.json_schema())
