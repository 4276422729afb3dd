"""The tether: what a process started ends when that process ends, even by SIGKILL.

A watchdog process reads a pipe that only its owner holds open. The owner writes down each process group before it
may run and strikes it out when it is gone; when the owner dies, the kernel closes the pipe and the watchdog kills what is left.

This, and not prctl(PR_SET_PDEATHSIG): that signal follows the *thread* that forked (a child restarted from a monitor
thread would die with it), reaches the child only and not the pool processes that a worker forked, and is Linux only.
The file runs alone, on the standard library, when it is the watchdog.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_GATE = 'read -r go && exec "$@" </dev/null'
"""A child waits for the word that it is written down; without it (the starter died) it never becomes the program."""
_PATIENCE_S = 2.0


class Tether:
    """Starts processes in groups of their own that cannot outlive this process.

    `keep` are descriptors that the watchdog holds open too, such as that of a lock.
    """

    def __init__(self, keep: Sequence[int] = ()) -> None:
        self._keep = tuple(keep)
        self._groups: set[int] = set()
        self._directories: set[Path] = set()
        self._mutex = threading.Lock()
        self._watchdog: subprocess.Popen[bytes] | None = None

    def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, output: IO[bytes] | int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `argv` in a session of its own, reading nothing, writing to `output`; its pid is its group's id.

        A program that cannot be found ends with code 127 and a line in `output`.
        """
        child = subprocess.Popen(
            ["/bin/sh", "-c", _GATE, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin as gate:
            self._note(add_group=child.pid)
            gate.write(b"go\n")
        return child

    def release(self, child: subprocess.Popen[bytes]) -> None:
        """Kill what is left of the group of `child`, which has ended, and strike it out."""
        kill_group(child.pid)
        self._note(drop_group=child.pid)

    def adopt(self, directory: Path) -> None:
        """Have `directory` removed if this process dies before `disown`."""
        self._note(add_directory=directory)

    def disown(self, directory: Path) -> None:
        """Strike `directory` out; its owner has removed it."""
        self._note(drop_directory=directory)

    def close(self) -> None:
        """Kill the groups that are left, remove the directories, and end the watchdog."""
        with self._mutex:
            watchdog, self._watchdog = self._watchdog, None
            self._groups.clear()
            self._directories.clear()
        if watchdog is not None:
            assert watchdog.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                watchdog.stdin.close()
            watchdog.wait()

    def _note(
        self,
        *,
        add_group: int | None = None,
        drop_group: int | None = None,
        add_directory: Path | None = None,
        drop_directory: Path | None = None,
    ) -> None:
        lines = []
        with self._mutex:
            if add_group is not None:
                self._groups.add(add_group)
                lines.append(f"+group {add_group}")
            if drop_group is not None:
                self._groups.discard(drop_group)
                lines.append(f"-group {drop_group}")
            if add_directory is not None:
                self._directories.add(add_directory)
                lines.append(f"+directory {add_directory}")
            if drop_directory is not None:
                self._directories.discard(drop_directory)
                lines.append(f"-directory {drop_directory}")
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        if self._watchdog is not None and self._watchdog.poll() is None:
            assert self._watchdog.stdin is not None
            try:
                self._watchdog.stdin.write("".join(f"{line}\n" for line in lines).encode())
                return
            except BrokenPipeError:
                pass
        self._watch()

    def _watch(self) -> None:
        """Start a watchdog, the first or one after it was killed, and tell it everything."""
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            self._watchdog.stdin.close()
            self._watchdog.wait()
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=self._keep,
            start_new_session=True,
            cwd="/",
            bufsize=0,
        )
        assert self._watchdog.stdin is not None
        known = [f"+group {group}" for group in sorted(self._groups)] + [f"+directory {each}" for each in sorted(self._directories)]
        self._watchdog.stdin.write("".join(f"{line}\n" for line in known).encode())


def kill_group(group: int) -> None:
    """Send SIGKILL to every process of `group`; a group that is gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def watch(lines: IO[str]) -> None:
    """Follow what the owner writes until it ends, then leave nothing of it behind."""
    left: set[str] = set()
    for line in lines:
        if line.startswith("+"):
            left.add(line[1:].rstrip("\n"))
        else:
            left.discard(line[1:].rstrip("\n"))
    named = [each.partition(" ")[::2] for each in left]
    groups = {int(name) for kind, name in named if kind == "group"}
    for group in groups:
        kill_group(group)
    deadline = time.monotonic() + _PATIENCE_S
    while groups and _any_lives(groups) and time.monotonic() < deadline:
        time.sleep(0.01)
    for kind, name in named:
        if kind == "directory":
            shutil.rmtree(name, ignore_errors=True)


def _any_lives(groups: set[int]) -> bool:
    """Return whether a process of `groups` still runs; the dead that nobody has reaped yet (init may be slow) do not count."""
    processes = Path("/proc")
    if not (processes / "self" / "stat").exists():
        return any(_exists(group) for group in groups)
    for entry in processes.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in parentheses may hold anything; state, parent and group follow its end.
                state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(group) in groups and state not in "ZX":
                    return True
    return False


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    watch(sys.stdin)
