"""The Celery app: `celery -A orchestrator.app worker|beat|flower|inspect ...` work as every Celery user expects."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import sys
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import Celery
from celery.app.autoretry import add_autoretry_behaviour
from celery.signals import celeryd_init

from cost import middleware
from orchestrator.kernel import Kernel
from orchestrator.node_task import NodeTask
from orchestrator.registry import TaskDefinition, registry
from orchestrator.settings import Settings
from orchestrator.store.engine import open_engine
from orchestrator.sweeper import Sweeper
from tenancy.errors import HeadgateError
from tenancy.transport import channel

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = "headgate_tasks"
"""Our `tasks` package under a name of its own: every Celery project has a `tasks` module already."""
ENTRY_POINTS = "headgate.tasks"


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


def load_by_path(name: str, path: Path) -> ModuleType:
    """Import the file or package at `path` as `name`, whatever else of its own name stands first on the path."""
    if name in sys.modules:
        return sys.modules[name]
    package = path.is_dir()
    spec = importlib.util.spec_from_file_location(
        name, path / "__init__.py" if package else path, submodule_search_locations=[str(path)] if package else None
    )
    if spec is None or spec.loader is None:
        raise HeadgateError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_tasks(modules: tuple[str, ...]) -> None:
    """Import the shipped tasks, those of installed packages (entry points `headgate.tasks`) and the modules named.

    Raises HeadgateError when a module is not found; the working directory is searched as Celery does it.
    """
    load_by_path(SHIPPED, ROOT / "tasks")
    for family in ("system", "synthetic", "documents"):
        importlib.import_module(f"{SHIPPED}.{family}")
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()
    here = str(Path.cwd())
    if modules and here not in sys.path:
        sys.path.insert(0, here)
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise HeadgateError(f"there is no module {module!r} in {here} or on the path; --tasks takes a module's name") from error


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
    if definition.adopted is None:
        made.tasks.pop(definition.name, None)
        made.task(definition.function, name=definition.name, base=NodeTask, lazy=False)
        return
    original = definition.adopted
    original = original._get_current_object() if hasattr(original, "_get_current_object") else original
    kind = type(
        original.__name__, (NodeTask, type(original)), {"name": definition.name, "abstract": False, "__module__": original.__module__}
    )
    adopted = kind()
    add_autoretry_behaviour(adopted)
    made.tasks.pop(definition.name, None)
    made.register_task(adopted)


def _introduce(sender: Any = None, **_: Any) -> None:
    """What this worker says of itself when it enrolls."""
    channel.WORKER_INFO.update(name=str(sender), host=socket.gethostname(), pid=os.getpid(), tasks=list(registry.names()))


app = make_app()
load_tasks(Settings.load().tasks)
