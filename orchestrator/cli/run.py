"""Verbs that make and follow runs: run, submit, watch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import as_json, print_json, say
from orchestrator.cli.words import BUDGET, RUN, TASKS, TRACEPARENT, quality
from tenancy.priorities import Priority

if TYPE_CHECKING:
    from orchestrator.cli.target import Target
    from orchestrator.client import Client
    from orchestrator.handle import RunHandle
    from orchestrator.settings import Settings

Command = Callable[..., Any]


def submission(command: Command) -> Command:
    """Add what says what to submit, and for whom."""
    for option in reversed(
        (
            click.argument("target"),
            click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]..."),
            click.option("--tenant", default="default", show_default=True, help="Who pays."),
            click.option("--budget", type=BUDGET, metavar="UNITS", help="Most that the run may cost, such as 0.06."),
            quality,
            click.option("--key", help="The same key and graph give the same run, however often they are submitted."),
            click.option(
                "--priority", type=click.Choice([p.name for p in Priority], case_sensitive=False), help="Among the tenant's work."
            ),
            click.option("--max-parallel", type=click.IntRange(min=1), metavar="N", help="How many of its nodes may run at once."),
            click.option("--tasks", type=TASKS, default=(), metavar="MODULE", help="Modules with the tasks of a graph in JSON."),
            click.option("--traceparent", type=TRACEPARENT, envvar="TRACEPARENT", help="The span that the run's spans belong to (W3C)."),
        )
    ):
        command = option(command)
    return command


timeout = click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer.")


@click.command()
@submission
@timeout
@as_json
def run(
    target: str,
    parameters: tuple[str, ...],
    tenant: str,
    budget: str | None,
    quality: str,
    key: str | None,
    priority: str | None,
    max_parallel: int | None,
    tasks: tuple[str, ...],
    traceparent: str | None,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Run a graph and wait for it.

    TARGET is a graph's JSON file, - for JSON on stdin, or module:dag, a dag of a module in this directory; NAME=VALUE are the
    dag's parameters, as JSON or text. Uses the stack that runs in HEADGATE_HOME, or starts one for the duration.
    Prints the result, with --json the run as `show --json` does.
    """
    from orchestrator.cli.follow import Following
    from orchestrator.cli.service import service
    from orchestrator.client import Client
    from orchestrator.settings import Settings

    settings = Settings.load()
    loaded = _load(target, parameters, tasks, settings)
    try:
        with service(settings, loaded.modules, say) as own:
            client = Client(settings)
            handle = _submit(client, loaded, tenant, budget, quality, key, priority, max_parallel, traceparent)
            say(f"run {handle.run_id} of {loaded.graph.name} submitted")
            code = Following(handle, _resume(handle.run_id, settings, loaded.modules if own else None)).to_the_end(
                timeout_s, as_json=as_json
            )
    except KeyboardInterrupt:
        raise click.Abort from None
    sys.exit(code)


@click.command()
@submission
@as_json
def submit(
    target: str,
    parameters: tuple[str, ...],
    tenant: str,
    budget: str | None,
    quality: str,
    key: str | None,
    priority: str | None,
    max_parallel: int | None,
    tasks: tuple[str, ...],
    traceparent: str | None,
    as_json: bool,
) -> None:
    """Submit a graph to the stack that runs, and print the id of its run.

    Once the id is printed the run is on record and will be run, whatever dies. TARGET and NAME=VALUE as for `run`.
    """
    from orchestrator.cli.held import held
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings
    from orchestrator.store.read import get_run

    settings = Settings.load()
    client = running(settings)
    loaded = _load(target, parameters, tasks, settings)
    handle = _submit(client, loaded, tenant, budget, quality, key, priority, max_parallel, traceparent)
    if as_json:
        print_json({"run_id": handle.run_id, "generation": handle.generation, "tenant": tenant, "graph": loaded.graph.name, "key": key})
    else:
        click.echo(handle.run_id)
        if (waits := handle.held) is not None:
            say(held(client, get_run(client.engine, handle.run_id), waits[0]))
        say(f"watch it with `headgate watch {handle.run_id}`")


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@timeout
@as_json
def watch(run_id: str, timeout_s: float | None, as_json: bool) -> None:
    """Watch a run until it ends; Ctrl-C stops the watching, not the run.

    RUN is the id of a run, the beginning of one, or `latest`.
    """
    from orchestrator.cli.follow import Following
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings

    settings = Settings.load()
    client = recorded(settings)
    handle = client.run(find_run(client.engine, run_id))
    if handle.status not in ("ended", "refused"):
        settings.resolved_redis_url()  # nothing would happen to watch
    sys.exit(Following(handle, _resume(handle.run_id, settings, None)).to_the_end(timeout_s, as_json=as_json))


def _load(target: str, parameters: tuple[str, ...], tasks: tuple[str, ...], settings: Settings) -> Target:
    """Load the graph and whatever tasks are known here, so that most of what is wrong shows before a stack starts."""
    from orchestrator.cli.target import limits_of, load_target
    from orchestrator.loading import load_tasks
    from orchestrator.registry import registry

    loaded = load_target(target, parameters, tasks, settings)
    load_tasks((*settings.tasks, *tasks))
    from orchestrator.cli.service import runs

    if not runs(settings):
        loaded.graph.resolved(registry).check(registry=registry, limits=limits_of(settings))
    return loaded


def _submit(
    client: Client,
    loaded: Target,
    tenant: str,
    budget: str | None,
    quality: str,
    key: str | None,
    priority: str | None,
    max_parallel: int | None,
    traceparent: str | None,
) -> RunHandle:
    return client.submit(
        loaded.graph,
        tenant=tenant,
        priority=priority,
        key=key,
        budget=budget,
        max_parallel=max_parallel,
        quality="full" if quality == "full" else "best",
        traceparent=traceparent,
    )


def _resume(run_id: str, settings: Settings, own_modules: tuple[str, ...] | None) -> str:
    """Say how to watch on; a run on a stack of the command's own stops with it."""
    home = "" if str(settings.home) == ".headgate" else f"HEADGATE_HOME={settings.home} "
    watching = f"`{home}headgate watch {run_id}`"
    if own_modules is None:
        return f"the run goes on, watch it with {watching}"
    tasks = f" --tasks {','.join(own_modules)}" if own_modules else ""
    return f"the stack stops with this command, and the run goes on with `{home}headgate up{tasks}`; watch it then with {watching}"
