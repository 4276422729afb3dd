"""The drawings of graphs, made at first view and kept: in memory those that were looked at last, in files what a restart must not lose."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import Engine

from orchestrator import json_pieces
from orchestrator.store import read
from orchestrator.store.read import RunView
from orchestrator.web import run_view

IN_MEMORY = 64
"""Drawings that are kept in memory: of the graphs that were looked at last."""
IN_FILES = 1_000
"""Drawings that are kept in files; of more, those go that were not looked at for the longest time."""
FILED_FROM = 500
"""Nodes from which a drawing has a file: a smaller one is made as soon as it is read."""
VERSION = 1
"""Counts how graphs were drawn: a drawing of another version is made anew."""

log = logging.getLogger(__name__)


class Drawings:
    """The drawings of graphs, by their digests; safe to use from several threads, and by several consoles over one directory.

    directory: where the files are, made when it is first needed. What is missing or damaged there is drawn anew, and where nothing can be
    written memory must do: nobody depends on the files.
    """

    def __init__(self, directory: Path, in_memory: int = IN_MEMORY, in_files: int = IN_FILES, filed_from: int = FILED_FROM) -> None:
        self._directory = directory
        self._in_memory, self._in_files, self._filed_from = in_memory, in_files, filed_from
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._made: dict[str, Future[dict[str, Any]]] = {}
        self._lock = Lock()
        self._told = False

    def of(self, engine: Engine, run: RunView) -> dict[str, Any]:
        """Return the drawing of a run's graph; empty where none was recorded. Raises Unavailable."""
        key = run.digest or f"{run.run_id}.{run.generation}"
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            # A page asks for its graph and its nodes at once: the second waits for the first.
            others = self._made.get(key)
            mine = self._made.setdefault(key, Future())
        if others is not None:
            return others.result()
        try:
            mine.set_result(self._make(key, engine, run))
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                if mine.exception() is None:
                    self._kept[key] = mine.result()
                while len(self._kept) > self._in_memory:
                    self._kept.popitem(last=False)
                del self._made[key]
        return mine.result()

    def _make(self, key: str, engine: Engine, run: RunView) -> dict[str, Any]:
        drawn = self._filed(key)
        if drawn is None:
            drawn = run_view.drawing(nodes_of(engine, run))
            if len(drawn["ids"]) >= self._filed_from:
                self._file(key, drawn)
        return drawn

    def _path(self, key: str) -> Path:
        # Hashed: a name of the record is not to become a path.
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()}.{VERSION}.json.z"

    def _filed(self, key: str) -> dict[str, Any] | None:
        path = self._path(key)
        try:
            drawn = json.loads(zlib.decompress(path.read_bytes()))
            os.utime(path)
        except (OSError, ValueError, zlib.error):
            return None
        return drawn if isinstance(drawn, dict) and isinstance(drawn.get("ids"), list) else None

    def _file(self, key: str, drawn: dict[str, Any]) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Whoever dies while he writes leaves a file that no key has, and that goes with the oldest.
            with tempfile.NamedTemporaryFile(dir=self._directory, suffix=".new", delete=False) as new:
                new.write(zlib.compress(json_pieces.dumps(drawn), 1))
            Path(new.name).replace(self._path(key))
            self._forget()
        except OSError as error:
            if not self._told:
                log.warning("drawings are kept in memory only: %s", error)
            self._told = True

    def _forget(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # another console forgot it; what is left over now goes with the next drawing
            there = sorted(self._directory.iterdir(), key=lambda path: path.stat().st_mtime)
            for path in there[: max(0, len(there) - self._in_files)]:
                path.unlink()


def nodes_of(engine: Engine, run: RunView) -> list[dict[str, Any]]:
    """Return the nodes of the graph that a run was submitted with; none where it was not recorded. Raises Unknown, Unavailable."""
    text = read.get_graph(engine, run.run_id, run.generation)
    return [] if text is None else json_pieces.nodes_of(text)
