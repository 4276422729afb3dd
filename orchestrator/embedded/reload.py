"""Which files a list of task modules comes from, and whether one of them changed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


def module_files(modules: Iterable[str], path: Sequence[str]) -> tuple[Path, ...]:
    """Return the source files of `modules`, found along `path` without importing anything; a package has all of its files."""
    found: list[Path] = []
    for module in modules:
        relative = Path(*module.split("."))
        for entry in path:
            single, package = Path(entry or ".") / relative.with_suffix(".py"), Path(entry or ".") / relative
            if (package / "__init__.py").is_file():
                found.extend(sorted(package.rglob("*.py")))
                break
            if single.is_file():
                found.append(single)
                break
    return tuple(found)


class SourceWatch:
    """Notices changed, new and removed files of `modules`, by modification time and size."""

    def __init__(self, modules: Sequence[str], path: Sequence[str] | None = None) -> None:
        self._modules = tuple(modules)
        self._path = tuple(path) if path is not None else (str(Path.cwd()), *sys.path)
        self._seen = self._look()

    def changed(self) -> tuple[Path, ...]:
        """Return the files that changed since the last call, in order; empty when none did."""
        now = self._look()
        before, self._seen = self._seen, now
        return tuple(sorted({file for file, _ in before.items() ^ now.items()}))

    def _look(self) -> dict[Path, tuple[int, int]]:
        seen = {}
        for file in module_files(self._modules, self._path):
            try:
                stat = file.stat()
            except FileNotFoundError:
                continue
            seen[file] = (stat.st_mtime_ns, stat.st_size)
        return seen
