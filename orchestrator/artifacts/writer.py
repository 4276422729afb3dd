"""The writer of artifacts: a thread of the recorder, so that neither a slow disk nor a long life holds up the record."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.artifacts.worker_summary import write_missing

log = logging.getLogger("headgate.artifacts")

AGAIN_S = 30.0
"""When what could not be written is tried again."""

LAST_S = 5.0
"""How long the recorder waits for it when it ends."""


class ArtifactWriter:
    """Writes what is missing when it is told that something may be; what fails is logged and tried again, and stops nobody."""

    def __init__(self, engine: Engine, home: Path) -> None:
        self.engine = engine
        self.home = home
        self._told = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="headgate-artifacts", daemon=True)

    def workers_ended(self) -> None:
        """Have the summaries of ended workers written soon; starts the thread when it is first called."""
        if self._thread.ident is None:
            self._thread.start()
        self._told.set()

    def close(self) -> None:
        """Finish what was asked for, within a few seconds."""
        self._ending = True
        self._told.set()
        if self._thread.ident is not None:
            self._thread.join(LAST_S)

    def _run(self) -> None:
        wait_s: float | None = None
        while True:
            self._told.wait(wait_s)
            self._told.clear()
            wait_s = None
            try:
                write_missing(self.engine, self.home)
            except (OSError, SQLAlchemyError, KeyError, TypeError, ValueError) as error:
                log.warning("artifacts could not be written, trying again in %.0f s: %s", AGAIN_S, error)
                wait_s = AGAIN_S
            if self._ending:
                return
