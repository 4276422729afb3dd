"""A terminal in a directory of its own: commands as a user types them, each ended by its pid at the latest with the test."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Terminal:
    """Commands run in `directory`, with HEADGATE_HOME in `home`."""

    directory: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "HEADGATE_", "PYTHONPATH"))}
        return {**kept, "HEADGATE_HOME": str(self.home), "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}", "COLUMNS": "120"}

    def start(self, argv: Sequence[str], **streams: Any) -> subprocess.Popen[str]:
        return subprocess.Popen([*argv], cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, text=True, **streams)

    def type(self, *argv: str) -> Done:
        process = self.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            end(process)
        return Done(process.returncode, out, err)

    def headgate(self, *words: str) -> Done:
        return self.type("headgate", *words)

    @contextmanager
    def up(self, *words: str) -> Iterator[dict[str, Any]]:
        """A stack by `headgate up`, stopped as Ctrl-C does; gives what it says of itself."""
        process = self.start(["headgate", "up", "--json", *words], stdout=subprocess.PIPE)
        try:
            yield read_json(process)
        finally:
            end(process)


def read_json(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the first JSON object that a process prints."""
    assert process.stdout is not None
    deadline, text = time.monotonic() + PATIENCE_S, ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(1.0):
                piece = os.read(process.stdout.fileno(), 4096).decode()
                assert piece, f"it ended and had said {text!r}"
                text += piece
                try:
                    found: dict[str, Any] = json.loads(text)
                except ValueError:
                    continue
                return found
    raise AssertionError(f"no JSON within {PATIENCE_S:g} s, only {text!r}")


def end(process: subprocess.Popen[str]) -> None:
    """Stop a process as Ctrl-C does, by force if it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
