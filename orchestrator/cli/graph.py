"""The verb that draws: graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import as_json, print_json
from orchestrator.cli.words import RUN, TASKS

if TYPE_CHECKING:
    from orchestrator.drawing.picture import Picture


@click.command()
@click.argument("target", required=False)
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--run", "run_id", type=RUN, metavar="RUN", help="Draw this run's graph instead, with what became of its nodes.")
@click.option("--format", "form", type=click.Choice(["dot", "mermaid", "svg"]), default="mermaid", show_default=True, help="As what.")
@click.option("--tasks", type=TASKS, default=(), metavar="MODULE", help="Modules with the tasks of a graph in JSON.")
@as_json
def graph(target: str | None, parameters: tuple[str, ...], run_id: str | None, form: str, tasks: tuple[str, ...], as_json: bool) -> None:
    """Draw a graph, or a run: for Graphviz, for Mermaid, or as an SVG file.

    TARGET and NAME=VALUE as for `run`; with --run nothing is needed. SVG folds lanes that are alike into one with a count.
    With --json nodes, their parents and states are printed instead.
    """
    if (target is None) == (run_id is None):
        raise click.UsageError("name a TARGET, or a run by --run")
    picture = _of_run(run_id) if run_id is not None else _of_target(str(target), parameters, tasks)
    if as_json:
        nodes = [
            {"id": shape.id, "task": shape.task, "required": shape.required, "state": shape.state, "after": list(picture.parents[shape.id])}
            for shape in picture.shapes
        ]
        print_json({"name": picture.name, "nodes": nodes})
        return
    from orchestrator.drawing.svg import svg
    from orchestrator.drawing.text import dot, mermaid

    click.echo({"dot": dot, "mermaid": mermaid, "svg": svg}[form](picture), nl=False)


def _of_target(target: str, parameters: tuple[str, ...], tasks: tuple[str, ...]) -> Picture:
    from orchestrator.cli.target import load_target
    from orchestrator.drawing.picture import Picture
    from orchestrator.registry import registry
    from orchestrator.settings import Settings

    found = load_target(target, parameters, tasks, Settings.load()).graph.resolved(registry)
    found.check(registry=registry, served=sorted(found.tasks()))
    return Picture.of(found)


def _of_run(name: str) -> Picture:
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import recorded
    from orchestrator.drawing.picture import Picture
    from orchestrator.graph import Graph
    from orchestrator.settings import Settings
    from orchestrator.store import read
    from tenancy.errors import Unknown

    engine = recorded(Settings.load()).engine
    run = read.get_run(engine, find_run(engine, name))
    spec = read.get_graph(engine, run.run_id, run.generation)
    if spec is None:
        raise Unknown(f"the graph of run {run.run_id} is not on record")
    states = {node.id: node.outcome or node.state for node in read.get_nodes(engine, run.run_id, run.generation)}
    return Picture.of(Graph.model_validate_json(spec), states)
