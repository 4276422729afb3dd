"""What every test stands on: a clean environment, a home, and a Redis of its own where it asks for one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery.result import AsyncResult
from hypothesis import settings as hypothesis_settings

from orchestrator.embedded import RedisServer
from orchestrator.settings import Settings
from orchestrator.store.engine import open_engines
from tests.postgres_server import PostgresServer, find_binaries

# Celery's result unsubscribes when it is collected, by then in another test and long after its own test's Redis has gone: 20 s of retries,
# and a warning there. Ours are handles, which do not.
AsyncResult.__del__ = lambda _: None  # type: ignore[method-assign]

# A shell that starts the tests in the background has them ignore Ctrl-C, and so what they start; tests of it press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

STRATA = ("unit", "property", "conformance", "integration")

# Two shared cores stall any single example at times; a deadline would report the machine, not the code.
hypothesis_settings.register_profile("headgate", deadline=None, print_blob=True)
hypothesis_settings.load_profile("headgate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its stratum, the folder it lies in."""
    for item in items:
        for part in item.path.parts:
            if part in STRATA:
                item.add_marker(part)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `both_records`, and has a record, on each database."""
    if metafunc.definition.get_closest_marker("both_records") and "database_kind" in metafunc.fixturenames:
        metafunc.parametrize("database_kind", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine reaches a test: CELERY_BROKER_URL, say, would send it to another broker."""
    for name in list(os.environ):
        if name.startswith(("CELERY_", "HEADGATE_")):
            monkeypatch.delenv(name)
    Settings.forget()
    yield
    Settings.forget()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home."""
    path = tmp_path / "home"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL that the tests of a session share; each has a database of its own there."""
    binaries = find_binaries()
    if binaries is None:
        missing = "there is no PostgreSQL server here (Debian: apt-get install postgresql)"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    server = PostgresServer(binaries)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> str:
    """What keeps this test's record: sqlite; with the marker `both_records` the test runs on postgresql, too."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database_kind: str, tmp_path: Path) -> Iterator[str]:
    """Where this test's record is to be, or is, without any row."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path}/home/headgate.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    yield server.url(server.record())
    let_go(server.RECORD)


@pytest.fixture
def new_database(request: pytest.FixtureRequest, database_kind: str, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Makes databases that nothing is in."""
    made: list[str] = []
    server: PostgresServer | None = None if database_kind == "sqlite" else request.getfixturevalue("postgres")

    def make() -> str:
        made.append(f"new{len(made)}" if server is None else server.make_database())
        return f"sqlite:///{tmp_path}/{made[-1]}.db" if server is None else server.url(made[-1])

    yield make
    for name in made if server is not None else []:
        let_go(name)
        server.drop_database(name)


def let_go(database: str) -> None:
    """Close this process's connections to a database of PostgreSQL."""
    for engine in open_engines():
        if engine.url.database == database:
            engine.dispose()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, on a private unix socket."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(home: Path, redis_server: RedisServer, database_url: str) -> Settings:
    """Settings with this test's home, Redis and record."""
    on_sqlite = database_url.startswith("sqlite")
    return Settings(home=home, redis_url=redis_server.url, database_url=None if on_sqlite else database_url)
