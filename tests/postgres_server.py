"""A PostgreSQL of the tests' own: a cluster in a private directory, on a unix socket, ended with the process that started it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import psutil
import psycopg
from sqlalchemy import make_url

from orchestrator.embedded.tether import Tether
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.tables import TABLES

USER = "headgate"
_ACCOUNTS = ("postgres", "nobody")


def find_binaries() -> Path | None:
    """Where initdb and postgres lie: the folder of the one in PATH, else Debian's newest; None where there is no server."""
    in_path = shutil.which("initdb")
    if in_path is not None:
        return Path(in_path).resolve().parent
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


class PostgresServer:
    """A server whose databases are made for one test each.

    It refuses to run as root: root starts it as another user, who owns its directory. Nothing is waited for to reach the disk: it is to
    survive its own death, not the machine's.
    """

    RECORD: ClassVar = "record"

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="hgpg-"))
        self._tether = Tether()
        self._tether.adopt(self.directory)
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._has_record = False
        self._as: list[str] = []
        if os.geteuid() == 0:
            account = next(found for name in _ACCOUNTS for found in pwd.getpwall() if found.pw_name == name)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
            self._as = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "--"]

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def start(self) -> None:
        """Start the server, for the first time with a new cluster, and wait until it answers."""
        if not self.data.exists():
            made = (
                "--auth=trust",
                f"--username={USER}",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--locale-provider=icu",
                "--icu-locale=en-US",
                "--no-sync",
            )
            self._run("initdb", f"--pgdata={self.data}", *made)
        settings = {"listen_addresses": "", "fsync": "off", "unix_socket_directories": self.directory, "max_connections": 200}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + 60
        while True:
            with self.log.open("ab") as log:
                argv = [*self._as, str(self.binaries / "postgres"), "-D", str(self.data), *options]
                self._process = self._tether.spawn(argv, cwd=self.directory, output=log)
            if self._answers(deadline):
                return
            # What is left of a server that was killed keeps its memory for a moment.
            assert time.monotonic() < deadline, self.log.read_text()[-2_000:]

    def _answers(self, deadline: float) -> bool:
        assert self._process is not None
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                psycopg.connect(self.dsn("postgres")).close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.05)
        return False

    def kill(self) -> None:
        """End the server and all that it started by SIGKILL."""
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self._process.pid)
            server.suspend()  # else it starts anew what is killed
            for child in server.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            server.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the server, and remove its cluster."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # at once: nothing of it is wanted any more
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self.kill()
        self._tether.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def dsn(self, database: str) -> str:
        """How psycopg and the programs of PostgreSQL name a database."""
        return f"postgresql://{USER}@/{database}?host={self.directory}"

    def url(self, database: str) -> str:
        """How Headgate's settings name a database."""
        return make_url(self.dsn(database)).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement that no transaction may be around."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def make_database(self) -> str:
        """Make an empty database, and return its name."""
        self._databases += 1
        name = f"made{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def record(self) -> str:
        """Return the name of a database with the record's tables and no row: the same each time, because making them takes a second."""
        if not self._has_record:
            self.execute(f"CREATE DATABASE {self.RECORD}")
            engine = open_engine(self.url(self.RECORD), writer=True)
            create_tables(engine)
            engine.dispose()
            self._has_record = True
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        self.execute(ended, self.RECORD)
        self.execute("; ".join(f"DELETE FROM {table.name}" for table in TABLES), self.RECORD)
        return self.RECORD

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def dump(self, database: str, path: Path) -> None:
        """Write a database as pg_dump does, as text."""
        path.write_bytes(self._run("pg_dump", "--no-owner", f"--dbname={self.dsn(database)}"))

    def restore(self, path: Path, database: str) -> None:
        """Fill an empty database from what `dump` wrote."""
        self._run("psql", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={self.dsn(database)}", given=path.read_bytes())

    def _run(self, program: str, *arguments: str, given: bytes = b"") -> bytes:
        argv = [*self._as, str(self.binaries / program), *arguments]
        done = subprocess.run(argv, cwd=self.directory, input=given, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout
