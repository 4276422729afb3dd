"""The Celery app: `celery -A orchestrator.app worker|beat|flower|inspect ...` work as every Celery user expects."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.autoretry import add_autoretry_behaviour
from celery.signals import celeryd_init

from cost import middleware
from orchestrator.kernel import Kernel
from orchestrator.loading import ROOT, SHIPPED, load_by_path, load_tasks
from orchestrator.node_task import NodeTask
from orchestrator.registry import TaskDefinition, registry
from orchestrator.settings import Settings
from orchestrator.store.engine import open_engine
from orchestrator.sweeper import Sweeper
from tenancy.errors import HeadgateError
from tenancy.transport import channel

__all__ = ["SHIPPED", "HeadgateApp", "app"]

UNAVAILABLE = 69
"""Exit code of a process that lacks a service or a setting (sysexits.h)."""


class HeadgateApp(Celery):
    """Celery with the kernel and the sweeper at hand."""

    @cached_property
    def headgate_kernel(self) -> Kernel:
        """The kernel of this process."""
        return Kernel(self, Settings.load())

    @cached_property
    def headgate_sweeper(self) -> Sweeper:
        """The sweeper over this process's kernel and database."""
        return Sweeper(self.headgate_kernel, open_engine(Settings.load().resolved_database_url()))


def make_app() -> HeadgateApp:
    """Return the app, configured from celeryconfig.py, with every known task registered as a node."""
    channel.install()
    made = HeadgateApp("headgate", set_as_current=True)
    made.config_from_object(load_by_path("headgate_celeryconfig", ROOT / "celeryconfig.py"))
    registry.subscribe(lambda definition: _register(made, definition))
    middleware.connect(lambda spent: made.headgate_kernel.settle(spent))
    celeryd_init.connect(_introduce, weak=False)
    return made


def _register(made: HeadgateApp, definition: TaskDefinition) -> None:
    """Make a definition a Celery task: gated when its message is a node's, stock otherwise."""
    given: dict[str, Any] = {"app": made, "name": definition.name, "abstract": False}
    if definition.adopted is None:
        function = definition.function
        # Not by `Celery.task`, which writes a function of the same name and so takes no lambda.
        given |= {"run": staticmethod(_ordinary(definition)), "__module__": function.__module__, "__doc__": function.__doc__}
        made.tasks.pop(definition.name, None)
        made.register_task(type(definition.name, (NodeTask,), given)())
        return
    original = definition.adopted
    original = original._get_current_object() if hasattr(original, "_get_current_object") else original
    # Its own app stands in the class that Celery made for it.
    given["__module__"] = original.__module__
    adopted = type(original.__name__, (NodeTask, type(original)), given)()
    add_autoretry_behaviour(adopted)
    made.tasks.pop(definition.name, None)
    made.register_task(adopted)


def _ordinary(definition: TaskDefinition) -> Callable[..., Any]:
    """What an ordinary message of the task runs."""
    if not definition.is_async:
        return definition.function

    @wraps(definition.function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(definition.function(*args, **kwargs))

    return run


def _introduce(sender: Any = None, **_: Any) -> None:
    """What this worker says of itself when it enrolls."""
    channel.WORKER_INFO.update(name=str(sender), host=socket.gethostname(), pid=os.getpid(), tasks=list(registry.names()))


def _is_celery_command() -> bool:
    """Whether this process is `celery ...` or `python -m celery ...`."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    return (program.parent.name if program.name == "__main__.py" else program.stem) == "celery"


try:
    app = make_app()
    load_tasks(Settings.load().tasks)
except HeadgateError as missing:
    if not _is_celery_command():
        raise
    # Celery prints the traceback of whatever fails here, and the one sentence that helps would be its last line.
    print(f"headgate: {missing}", file=sys.stderr)  # noqa: T201 (a command says what it needs)
    sys.exit(UNAVAILABLE)
