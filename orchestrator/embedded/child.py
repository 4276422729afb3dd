"""A child process of the stack: one program with its log, and when to start it again."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.control import DRAINED
from orchestrator.embedded.tether import Tether, kill_group

LOG_BYTES_MAX = 10 * 1024 * 1024
"""A log larger than this when the stack starts is put aside as NAME.log.1."""
_STEADY_S = 30.0
_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.25, 10.0


@dataclass(frozen=True)
class Program:
    """What to run: an argument list, a whole environment, and the file that takes what it prints."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path


def backoff_s(deaths: int) -> float:
    """Return the seconds to wait before the start after the `deaths`-th death in a row, from 0.25 doubling to 10."""
    return min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2.0 ** min(deaths - 1, 16))


class Child:
    """One program, running or not, with the group of processes that it leads."""

    def __init__(self, program: Program, tether: Tether) -> None:
        self.program = program
        self._tether = tether
        self._process: subprocess.Popen[bytes] | None = None
        self._said_from = 0
        self._started_at = 0.0
        self.deaths = 0
        """Deaths in a row; a life of 30 s ends the row."""
        self.due_at: float | None = None
        """When to start it again (monotonic seconds), or None."""
        self.kill_at: float | None = None
        """When a child that was asked to make room is killed (monotonic seconds), or None."""
        self.retired = False
        """A retired child is not started again."""

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    @property
    def pid(self) -> int | None:
        """The process id of the running process, None between two lives."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the program; its log is appended to."""
        log = self.program.log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_name(log.name + ".1"))
        with log.open("ab") as output:
            self._said_from = output.tell()
            self._process = self._tether.spawn(self.program.argv, env=self.program.env, output=output)
        self._started_at = time.monotonic()
        self.due_at = self.kill_at = None

    def alive(self) -> bool:
        """Return whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def said(self) -> str:
        """Return what this life printed to the log so far."""
        with self.program.log.open("rb") as log:
            log.seek(self._said_from)
            return log.read().decode(errors="replace")

    def last_words(self) -> str:
        """Return the last line that is not empty of what this life printed."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it said nothing"

    def bury(self, now: float) -> str:
        """Take note of a death: end what is left of the group, set `due_at`; return how it ended.

        `now` is monotonic seconds.
        """
        assert self._process is not None
        code = self._process.wait()
        self._tether.release(self._process)
        self._process = None
        asked, self.kill_at = self.kill_at is not None, None
        # An operator took it out; whoever wants it back starts the stack anew.
        self.retired |= code == DRAINED
        self.deaths = 1 if now - self._started_at > _STEADY_S else self.deaths + 1
        self.due_at = None if self.retired else now if asked else now + backoff_s(self.deaths)
        if asked:
            self.deaths = 0
            return "made room"
        if code == DRAINED:
            return "was drained and stays stopped"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def make_room(self, now: float, grace_s: float) -> None:
        """Ask the process to end so that it can be started anew; it is killed `grace_s` later if it has not."""
        self.kill_at = now + grace_s
        self.ask()

    def ask(self) -> None:
        """Send SIGTERM to the process itself, which ends its own pool."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the whole group; the death is still to be buried."""
        if self._process is not None:
            kill_group(self._process.pid)

    def _send(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
