"""What beat calls every second: writes the files about runs that have ended, and the snapshot of the queues; takes away what is old.

Which runs are to be written is found by going along the log in SQL, from the marker that lies among the files. What cannot be written stays
where it is in the log, and stops nobody.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from orchestrator.artifacts import place
from orchestrator.artifacts.file import FILE_MODE, make_folder, write_json
from orchestrator.artifacts.marker import Marker, add_lines
from orchestrator.artifacts.pruning import Pruning
from orchestrator.artifacts.queue_state import queue_state
from orchestrator.artifacts.run_files import RunFiles, capacity_at
from orchestrator.artifacts.worker_summary import of_workers
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store.position import START, Position
from orchestrator.store.run_ends import Ended, executions, run_ends
from tenancy.errors import Unknown
from tenancy.link import Link
from tenancy.queues import DEFAULT_POOL
from tenancy.transport.view import look

log = logging.getLogger("headgate.artifacts")

EVENTS_AT_ONCE = 20_000
"""Events of the log that are looked at together."""

RUNS_AT_ONCE, NODES_AT_ONCE = 50, 1_000
"""What is written between two marks: so much is done again after a crash."""

WRITERS = 8
"""Files that are written at once: most of it is waiting for the disk, which takes several as it takes one."""

AGAIN_S = 10.0
"""When a folder that could not be written is tried again."""

PASS_S = 1.0
"""No piece is begun later than this in a pass; what is left, the next one does."""

_ODD = (AttributeError, KeyError, TypeError, ValueError, zlib.error, Unknown)
"""What a run on record may be that no file can be made of; it is passed over, and the log says which."""


Life = tuple[Position, dict[str, Any]]
"""An event of the life of a worker."""


@dataclass(frozen=True)
class _Run:
    ended: Ended
    files: RunFiles


class Exporter:
    """Writes into the folder of the settings; of several at once, also on one disk, one works. Raises OSError, Unavailable, Fenced."""

    def __init__(self, link: Link, engine: Engine, settings: Settings, clock: Callable[[], int] | None = None) -> None:
        self.link = link
        self.engine = engine
        self.settings = settings
        self.root = settings.resolved_artifacts_dir()
        self._now_ms = clock or link.now_ms
        self._rests_until = 0.0
        self._pruning = Pruning(self.root, settings.artifacts_kept_s, settings.reports_kept_days * 86_400.0)

    def tick(self) -> int:
        """Write what is due, and return how many runs that was about; nothing for some seconds after the folder could not be written."""
        if not self.settings.artifacts or time.monotonic() < self._rests_until:
            return 0
        try:
            return self._tick()
        except OSError:
            self._rests_until = time.monotonic() + AGAIN_S
            raise

    def _tick(self) -> int:
        with self._alone() as alone:
            if not alone:
                return 0
            write_json(place.queue_state(self.root), queue_state(look(self.link, backlog_per_slot=self.settings.backlog_per_slot)))
            done = self.write_runs(time.monotonic() + PASS_S)
            self._pruning.go_on(self._now_ms() / 1000)
            return done

    def write_runs(self, until: float) -> int:
        """Write the files about runs that ended and have none, until `until` (monotonic, s); return how many runs."""
        marker, done = self._marker(), 0
        marker.cut_back()
        # What a crash left half done is done again, whichever of its files are there.
        again = marker.until or START
        since = self._now_ms() - int(self.settings.artifacts_kept_s * 1000)
        lives = None
        while True:
            ends = run_ends(self.engine, marker.position, EVENTS_AT_ONCE)
            if ends.until == marker.position:
                break
            due = [each for each in ends.runs if each.at >= since and (each.position <= again or not self._is_written(each))]
            if due:
                lives = lives or of_workers(self.engine)
            for piece in self._pieces(due, lives or []):
                self._write(marker, piece)
                marker.done(piece[-1].ended.position)
                done += len(piece)
                if time.monotonic() >= until:
                    marker.write()
                    return done
            marker.done(ends.until)
            if time.monotonic() >= until:
                break
        if marker.moved:
            marker.write()
        return done

    def _marker(self) -> Marker:
        marker = Marker.read(self.root)
        if marker.position > read.recorded(self.engine):
            log.warning("the artifacts in %s are of another record: those of this one are written from its beginning", self.root)
            return Marker(self.root)
        return marker

    def _is_written(self, ended: Ended) -> bool:
        return place.concurrency_report(self.root, ended.run_id, ended.generation).exists()

    def _pieces(self, due: Sequence[Ended], lives: Sequence[Life]) -> Iterator[list[_Run]]:
        piece: list[_Run] = []
        nodes = 0
        for ended in due:
            try:
                files = self._files(ended, lives).built()
            except _ODD as error:
                log.error("no files can be made of run %s, generation %s: %r", ended.run_id, ended.generation, error)
                continue
            piece.append(_Run(ended, files))
            nodes += len(files.nodes)
            if len(piece) == RUNS_AT_ONCE or nodes >= NODES_AT_ONCE:
                yield piece
                piece, nodes = [], 0
        if piece:
            yield piece

    def _files(self, ended: Ended, lives: Sequence[Life]) -> RunFiles:
        name = ended.run_id, ended.generation
        run = read.get_run(self.engine, *name)
        graph = json.loads(read.get_graph(self.engine, *name) or b"{}")
        own = frozenset(str(node["pool"]) for node in graph.get("nodes", ()) if node.get("pool"))
        pools = own or frozenset({read.get_tenant(self.engine, run.tenant).policy.pool or DEFAULT_POOL})
        capacity = capacity_at(lives, ended.position, pools, self.settings.backlog_per_slot)
        nodes, events = read.get_nodes(self.engine, *name), executions(self.engine, *name)
        return RunFiles.of(run, nodes, events, capacity, self.settings.park_at_percent)

    def _write(self, marker: Marker, piece: Sequence[_Run]) -> None:
        lines: dict[Path, list[str]] = defaultdict(list)
        for each in piece:
            for worker, texts in each.files.trace_lines.items():
                lines[place.trace(self.root, worker)] += texts
        marker.begin(piece[-1].ended.position, lines)
        for path, texts in lines.items():
            add_lines(path, texts)
        with ThreadPoolExecutor(WRITERS) as pool:
            of_nodes = [each for run in piece for each in run.files.files_of_nodes(self.root)]
            list(pool.map(lambda each: write_json(*each), of_nodes))
            list(pool.map(lambda run: run.files.write_together(self.root), piece))
            list(pool.map(lambda run: run.files.write_report(self.root), piece))

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this process is the one that writes into the folder; by a lock of the file system, which ends with who holds it."""
        make_folder(self.root)
        with os.fdopen(os.open(self.root / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
