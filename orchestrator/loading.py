"""Loading tasks: the shipped ones, those of installed packages, and a user's own modules."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from tenancy.errors import HeadgateError

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = "headgate_tasks"
"""Our `tasks` package under a name of its own: every Celery project has a `tasks` module already."""
ENTRY_POINTS = "headgate.tasks"


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
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # half of a module must not be found by the next attempt
        raise
    return module


def load_tasks(modules: Iterable[str]) -> None:
    """Import the shipped tasks, those of installed packages (entry points `headgate.tasks`) and the modules named.

    Raises HeadgateError when a module is not found or fails; the working directory is searched first, as Celery does it.
    """
    load_by_path(SHIPPED, ROOT / "tasks")
    for family in ("system", "synthetic", "documents"):
        importlib.import_module(f"{SHIPPED}.{family}")
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()
    for module in modules:
        import_from_here(module)


def import_from_here(module: str) -> ModuleType:
    """Import a user's module; the working directory is searched first.

    Raises HeadgateError in one sentence when there is no such module, or when it fails; errors of ours pass as they are.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except HeadgateError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise HeadgateError(f"there is no module {module!r} in {here} or on the path") from error
        raise HeadgateError(f"the module {module!r} cannot be imported: {sentence(error)}") from error
    except Exception as error:
        raise HeadgateError(f"the module {module!r} cannot be imported: {sentence(error)}") from error


def sentence(error: Exception) -> str:
    """Return what an error says, and the last line of a user's that led to it."""
    if isinstance(error, SyntaxError):  # names file and line itself
        return f"{type(error).__name__}: {error}"
    trace = error.__traceback__
    where = ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<frozen") and not Path(name).resolve().is_relative_to(ROOT / "orchestrator"):
            where = f" ({Path(name).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{where}"
