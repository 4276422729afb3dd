"""A TARGET of the command line: a graph's JSON file, or `module:dag`."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tenancy.errors import HeadgateError

if TYPE_CHECKING:
    from types import ModuleType

    from orchestrator.graph import Graph
    from orchestrator.graph.limits import Limits
    from orchestrator.settings import Settings

ASK_S = 2.0
"""How long a stack may take to say what its workers serve; it is asked only when a graph is refused anyway."""

_DAG = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Target:
    """A graph, and the modules that whoever runs it has to load."""

    graph: Graph
    modules: tuple[str, ...]


def limits_of(settings: Settings) -> Limits:
    """Return how large a graph may be under these settings."""
    from orchestrator.graph.limits import Limits

    return Limits(
        nodes=settings.max_nodes, edges=settings.max_edges, bytes_max=settings.max_graph_bytes, params_bytes=settings.max_params_bytes
    )


def load_target(target: str, assignments: Sequence[str], tasks: Sequence[str], settings: Settings) -> Target:
    """Return the graph that TARGET names, built with the `name=value` parameters.

    Raises click.UsageError where the words are wrong, GraphInvalid where the graph is, HeadgateError where a module is.
    """
    params = parameters(assignments)
    named = _DAG.fullmatch(target)
    if named is not None and not Path(target).exists():
        graph = _build(target, named["module"], named["name"], params)
        return Target(graph, tuple(dict.fromkeys((named["module"], *tasks))))
    if params:
        raise click.UsageError(f"{target} is a graph as it stands; name=value parameters are for a module:dag")
    return Target(_parse(_read(target, settings), tasks, settings), tuple(tasks))


def load_resolved(target: str, assignments: Sequence[str], tasks: Sequence[str], settings: Settings) -> tuple[Graph, list[str]]:
    """Return the graph of a TARGET with what its tasks declare, checked, and the tasks that are not known here."""
    from orchestrator.loading import load_tasks
    from orchestrator.registry import registry

    graph = load_target(target, assignments, tasks, settings).graph
    load_tasks((*settings.tasks, *tasks))
    resolved = graph.resolved(registry)
    unknown = sorted(resolved.tasks() - set(registry.names()))
    resolved.check(registry=registry, served=unknown, limits=limits_of(settings))
    return resolved, unknown


def parameters(assignments: Sequence[str]) -> dict[str, Any]:
    """Return `name=value` words as parameters: a value is JSON where it parses as such, else text."""
    found: dict[str, Any] = {}
    for word in assignments:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise click.UsageError(f"{word!r} is not a parameter; write name=value")
        if name in found:
            raise click.UsageError(f"the parameter {name!r} is given twice")
        try:
            found[name] = json.loads(text, parse_constant=_no_constant)
        except ValueError:
            found[name] = text
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse(text: bytes, tasks: Sequence[str], settings: Settings) -> Graph:
    """Return the graph, or raise GraphInvalid with all that is wrong with it, its tasks and their parameters included.

    Tasks that nobody knows are named beside what else is wrong. By themselves they are left to the command: a stack that is
    still to come may serve them.
    """
    from orchestrator.graph.parse import parse
    from orchestrator.loading import load_tasks
    from orchestrator.registry import registry
    from tenancy.errors import GraphInvalid

    limits = limits_of(settings)
    load_tasks((*settings.tasks, *tasks))
    graph, problems = parse(text, limits, registry, elsewhere=True)
    if graph is not None:
        return graph
    served = _served(settings)
    if served is not None:
        problems = parse(text, limits, registry, served)[1]
    raise GraphInvalid(problems)


def _served(settings: Settings) -> frozenset[str] | None:
    """Return the names of the tasks that live workers serve: none where no stack runs, None where it cannot be asked."""
    from orchestrator.cli.service import runs

    if not runs(settings):
        return frozenset()
    import redis

    from tenancy import keys

    try:
        with redis.Redis.from_url(settings.resolved_client_url(), socket_timeout=ASK_S, socket_connect_timeout=ASK_S) as client:
            return frozenset(name.decode() for name in client.hkeys(keys.SERVES))
    except (redis.RedisError, OSError, HeadgateError):
        return None


def _read(target: str, settings: Settings) -> bytes:
    limit = settings.max_graph_bytes + 1  # one more than is taken, so that parsing sees that it is too large
    if target == "-":
        return sys.stdin.buffer.read(limit)
    path = Path(target)
    if path.suffix == ".py":
        raise click.UsageError(f"{target} is Python; for a dag of that module write {'.'.join(path.with_suffix('').parts)}:NAME")
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        hint = f"; for a dag of that module write {target}:NAME" if target.isidentifier() else ""
        raise click.UsageError(f"{target!r} is neither a graph's JSON file nor module:dag{hint}") from None
    except OSError as error:
        raise click.UsageError(f"{target} cannot be read: {error.strerror}") from None


def _build(target: str, module_name: str, name: str, params: Mapping[str, Any]) -> Graph:
    from orchestrator.building import Dag
    from orchestrator.graph import Graph
    from orchestrator.loading import import_from_here, sentence

    module = import_from_here(module_name)
    found = getattr(module, name, None)
    if isinstance(found, Graph):
        if params:
            raise click.UsageError(f"{target} is a graph as it stands and takes no parameters")
        return found
    if not isinstance(found, Dag):
        raise click.UsageError(_no_dag(module, module_name, name, exists=found is not None))
    signature = inspect.signature(found.function)
    try:
        signature.bind(**params)
    except TypeError as error:
        takes = ", ".join(map(str, signature.parameters.values())) or "no parameters"
        raise click.UsageError(f"{target}: {error}; it takes {takes}") from None
    try:
        return found(**params)
    except HeadgateError:
        raise
    except Exception as error:
        raise HeadgateError(f"the dag {target} cannot be built: {sentence(error)}") from error


def _no_dag(module: ModuleType, module_name: str, name: str, *, exists: bool) -> str:
    from orchestrator.building import Dag

    dags = sorted(each for each, value in vars(module).items() if isinstance(value, Dag))
    nearest = difflib.get_close_matches(name, dags, n=1) or dags[:1]
    what = f"{name!r} in {module_name} is no dag" if exists else f"there is no {name!r} in {module_name}"
    return f"{what}; " + (f"write {module_name}:{nearest[0]}" if nearest else "decorate a function with @dag")
