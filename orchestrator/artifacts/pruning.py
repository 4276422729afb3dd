"""Taking away artifacts of what has been over for long: a few thousand files are looked at in a pass, so that none takes long."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orchestrator.artifacts import place

log = logging.getLogger("headgate.artifacts")

LOOKED_AT = 2_000
"""Files that are looked at in a pass."""

ROUND_S = 3_600.0
"""How long it rests between two rounds through the folder."""

CURRENT = frozenset({"queue_state.json", "budget_usage.json", "learning_profile.json", "learning_history.jsonl"})
"""What is about now, however old it is."""


class Pruning:
    """Goes round the folder, and removes files that nobody has written to for `kept_s`, and folders that are empty then.

    reports_kept_s: how long those of reports are kept, as long as the reports themselves.
    """

    def __init__(self, root: Path, kept_s: float, reports_kept_s: float) -> None:
        self.root = root
        self.kept_s = kept_s
        self.reports_kept_s = reports_kept_s
        self._round: Iterator[os.DirEntry[str]] | None = None
        self._rests_until = 0.0

    def go_on(self, now: float) -> int:
        """Look at some more files; `now` is epoch seconds. Returns how many were removed. Raises nothing: what cannot go now goes later."""
        if self._round is None:
            if time.monotonic() < self._rests_until:
                return 0
            self._round = self._files(self.root)
        removed = 0
        for _ in range(LOOKED_AT):
            entry = next(self._round, None)
            if entry is None:
                self._round, self._rests_until = None, time.monotonic() + ROUND_S
                break
            with suppress(OSError):
                kept_s = self.reports_kept_s if place.is_report(entry.name) else self.kept_s
                if entry.stat(follow_symlinks=False).st_mtime < now - kept_s:
                    Path(entry.path).unlink()
                    removed += 1
        if removed:
            log.info("removed %d artifacts of what was over long ago", removed)
        return removed

    def _files(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """Yield the files below a folder; it goes itself, unless it is the first, when there is nothing in it afterwards."""
        try:
            # No list of them all: there may be millions.
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._files(Path(entry.path))
                    elif entry.name not in CURRENT and (not entry.name.startswith(".") or entry.name.endswith(".new")):
                        yield entry
        except OSError as error:
            log.warning("%s was not looked through: %s", folder, error)
            return
        if folder != self.root:
            with suppress(OSError):
                folder.rmdir()  # refused unless it is empty
