"""What every test stands on: a clean environment, a home, and a Redis of its own where it asks for one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.result import AsyncResult
from hypothesis import settings as hypothesis_settings

from orchestrator.embedded import RedisServer
from orchestrator.settings import Settings

# Celery's result unsubscribes when it is collected, by then in another test and long after its own test's Redis has gone: 20 s of retries,
# and a warning there. Ours are handles, which do not.
AsyncResult.__del__ = lambda _: None  # type: ignore[method-assign]

# A shell that starts the tests in the background has them ignore Ctrl-C, and so what they start; tests of it press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

STRATA = ("unit", "property", "integration")

# Two shared cores stall any single example at times; a deadline would report the machine, not the code.
hypothesis_settings.register_profile("headgate", deadline=None, print_blob=True)
hypothesis_settings.load_profile("headgate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its stratum, the folder it lies in."""
    for item in items:
        for part in item.path.parts:
            if part in STRATA:
                item.add_marker(part)


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
    path.mkdir()
    return path


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, on a private unix socket."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(home: Path, redis_server: RedisServer) -> Settings:
    """Settings with this test's home and this test's Redis."""
    return Settings(home=home, redis_url=redis_server.url)
