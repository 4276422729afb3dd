"""The lock of a home: one embedded stack at a time."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from tenancy.errors import Unavailable


class HomeLock:
    """An flock on `path`, whose file names the process that holds it.

    The lock lives as long as any process that inherited the descriptor: the tether keeps it too, so a home is free
    again only when everything of a killed stack is gone. It is not removed, only released: unlinking a locked file
    would let two processes hold "the" lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The locked descriptor, to pass to those that keep the lock."""
        assert self._fd is not None, "not acquired"
        return self._fd

    def acquire(self, patience_s: float = 5.0) -> None:
        """Take the lock, waiting at most `patience_s` for the remains of a killed stack to go.

        Raises Unavailable, naming the pid, if a living stack holds it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = self.holder()
                if (holder and _alive(holder)) or time.monotonic() > deadline:
                    os.close(fd)
                    who = f" (pid {holder})" if holder else ""
                    remedy = "use it, stop it, or set HEADGATE_HOME to another directory"
                    raise Unavailable(f"a Headgate stack{who} already runs in {self.path.parent}: {remedy}") from None
                time.sleep(0.02)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def holder(self) -> int | None:
        """Return the pid that the file names, or None."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
