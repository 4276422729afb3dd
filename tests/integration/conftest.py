"""One embedded stack for all tests of the running product: two workers of two processes, a recorder, beat, no console."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
import singles
from browsers import CHROMIUM
from consoles import HEADGATE, opened
from playwright.sync_api import Browser, sync_playwright
from running import SLOTS, WORKERS, Running, let_go, producer, until

from orchestrator.assembly import HeadgateApp, producer_app
from orchestrator.embedded import RedisServer, Stack
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store.tables import LIVE
from tenancy.errors import Refused
from tests.integration.hands import Hands, make_recorder

HERE = Path(__file__).resolve().parent
TASKS = ("node_tasks", "slot_tasks", "talking_tasks")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless the marker is asked for."""
    if "slow" not in config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow; run with `./dev test -m slow`"))


shared: list[Running] = []
"""The stack of the session, once a test has asked for it."""


@pytest.fixture(scope="module", autouse=True)
def clean_up_after_failures() -> Iterator[None]:
    """What a test that failed halfway left in the shared stack, runs and pauses, is ended here: it must not fail those that follow."""
    yield
    for stack in shared:
        for scope in stack.redis.smembers("hg1:paused"):
            with suppress(Refused):  # a run that is held goes on by an approval alone, and is cancelled below
                stack.client.resume(scope.removesuffix(".1"), reason="a test left it")
        for run in read.list_runs(stack.client.engine, limit=10_000):
            if run.status in LIVE:
                stack.client.cancel(run.run_id, now=True, reason="a test left it")
        until(lambda stack=stack: not stack.redis.exists("hg1:runs"), 60)


@pytest.fixture(scope="session")
def stack() -> Iterator[Running]:
    """The stack that the tests of a session share; ready when it is given out."""
    home = Path(tempfile.mkdtemp(prefix="hg"))
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("CELERY_", "HEADGATE_")):
            del os.environ[name]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [before.get("PYTHONPATH")])])
    os.environ[singles.FLAG] = str(home / "singles")
    try:
        with Stack(Settings(home=home), WORKERS, SLOTS, TASKS, console=False) as running:
            singles.install()
            for module in TASKS:
                importlib.import_module(module)  # the producer knows the tasks too
            client = producer(Settings(home=home, redis_url=running.redis_url, tasks=TASKS))
            with redis.Redis.from_url(running.client_url, decode_responses=True) as connection:
                shared.append(Running(running, client, connection))
                yield shared[0]
                shared.clear()
            let_go(client)
    finally:
        singles.remove()
        os.environ.clear()
        os.environ.update(before)
        Settings.forget()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def console(stack: Running) -> Iterator[str]:
    """The URL of a console of the shared stack."""
    with opened(stack.client.settings, HEADGATE) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window. For a module: its driver has an event loop, beside which no other runs."""
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def recorder(redis_server: RedisServer, settings: Settings) -> Recorder:
    """A recorder in this process, for this test's Redis."""
    return make_recorder(redis_server, settings)


@pytest.fixture
def hands(redis_server: RedisServer, settings: Settings, recorder: Recorder) -> Hands:
    """Who submits and works by hand, as one live worker."""
    hands = Hands(redis_server, settings)
    hands.enroll()
    return hands


@pytest.fixture
def app(settings: Settings) -> Iterator[HeadgateApp]:
    """The app of a producer, for this test's Redis."""
    made = producer_app(settings)
    yield made
    made.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A plain connection to this test's Redis."""
    with redis.Redis.from_url(redis_server.client_url, decode_responses=True) as connection:
        yield connection
