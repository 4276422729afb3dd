"""Who is told of a level, once for each period and level: by HTTP on loopback, by the log, by a function."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.embedded import RedisServer
from orchestrator.notify import Notifier
from orchestrator.notify.webhook import NotDelivered, Post, sign
from orchestrator.recorder import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from tests.integration.hands import make_recorder

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "budgets.md"
SECRET = "a secret of 16 or more"
DAY_MS = 86_400_000

TOLD: list[dict[str, Any]] = []


def hook(payload: dict[str, Any]) -> None:
    TOLD.append(payload)


def documented() -> dict[str, Any]:
    """What the receiver on the page defines."""
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


class Endpoint:
    """The documented receiver on a port of its own; `before` may answer in its stead."""

    def __init__(self) -> None:
        names = documented()
        self.requests: list[dict[str, str]] = []
        self.before: Callable[[BaseHTTPRequestHandler], bool] = lambda _: False
        self.genuine = names["is_genuine"]
        self.seen: set[str] = names["SEEN"]
        endpoint = self
        receiver: Any = names["Receiver"]

        class Counting(receiver):
            def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
                if not endpoint.before(self):
                    endpoint.requests.append(dict(self.headers))
                    super().do_POST()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/told?by=headgate"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def keys(self) -> list[str]:
        return [headers["Headgate-Key"] for headers in self.requests]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    opened = Endpoint()
    yield opened
    opened.close()


class World:
    """A recorder, a notifier whose clock the test moves, and tenants that spend."""

    def __init__(self, server: RedisServer, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"webhook_secret": SECRET, "notify": f"{__name__}:hook"})
        self.recorder: Recorder = make_recorder(server, settings)
        self.link = self.recorder.link
        self.client: Any = self.link.client
        self.later_ms = 0
        self.notifier = self.another()
        self.tasks = 0

    def another(self, **changes: Any) -> Notifier:
        settings = self.settings.model_copy(update=changes)
        return Notifier(self.link, self.recorder.engine, settings, deadline_s=0.5, clock=self.now_ms)

    def now_ms(self) -> int:
        seconds, micros = self.link.read("TIME")
        return int(seconds) * 1000 + int(micros) // 1000 + self.later_ms

    def record(self) -> None:
        while self.recorder.step(None):
            pass

    def tenant(self, tenant: str, **policy: Any) -> None:
        append_request(self.link, "request.tenant", {"tenant": tenant, "policy": {"limit_per_day_micros": 1_000, **policy}})
        self.record()

    def spend(self, tenant: str, amount: int, charged: int | None = None) -> None:
        self.tasks += 1
        task = f"t{self.tasks}"
        said, attempt = self.link.call("cost/task_begin", task, "t", tenant, amount, "claim", "", "", "", "w", 60_000)
        assert said == "run"
        charged = amount if charged is None else charged
        assert self.link.call("cost/task_report", task, "t", attempt, f"llm={charged}" if charged else "", "signal") == "settled"

    def deliver(self) -> int:
        self.record()
        taken = self.notifier.deliver()
        self.record()
        return taken

    def rows(self, channel: str = "webhook") -> list[tuple[str, int]]:
        with self.recorder.engine.connect() as connection:
            found = connection.execute(select(t.notice).where(t.notice.c.channel == channel).order_by(t.notice.c.id)).all()
        return [(row.state, row.tries) for row in found]


@pytest.fixture
def world(redis_server: RedisServer, settings: Settings) -> World:
    TOLD.clear()
    return World(redis_server, settings)


def test_a_level_is_told_once_in_its_period_by_every_channel(world: World, endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    world.tenant("acme", webhook=endpoint.url)
    with caplog.at_level(logging.WARNING, "headgate.notify"):
        world.spend("acme", 700)
        world.spend("acme", 100, charged=0)  # enters WARNING at 80 %, and leaves it at 70 %
        world.spend("acme", 150)  # enters it again
        assert world.deliver() == 3
        assert world.deliver() == 0
    entered = [row for row in (json.loads(e["e"]) for _, e in world.client.xrange("hg1:events")) if row["t"] == "level.entered"]
    assert [row["entry"] for row in entered] == [1, 2]
    assert len(endpoint.requests) == 1
    assert endpoint.seen == set(endpoint.keys), "it was genuine, or the receiver would not have seen it"
    assert [payload["key"] for payload in TOLD] == endpoint.keys
    assert str(TOLD[0]["cause"]).startswith("task.t2.0.t.")
    assert (TOLD[0]["rate_ppm"], TOLD[0]["committed_micros"], TOLD[0]["limit_micros"]) == (800_000, 800, 1_000)
    assert sum("is at WARNING" in record.message for record in caplog.records) == 1
    assert world.rows() == world.rows("log") == world.rows("hook") == [("sent", 1)]


def test_what_is_signed_by_another_or_long_ago_is_refused_by_the_documented_receiver(endpoint: Endpoint) -> None:
    Post(endpoint.url, "k", '{"key": "k", "tenant": "a", "level": "WARNING", "period": "2026-11-22"}', SECRET, int(time.time())).send()
    with pytest.raises(NotDelivered, match="403"):
        Post(endpoint.url, "k", "{}", "another secret of 16", int(time.time())).send()
    with pytest.raises(NotDelivered, match="403"):
        Post(endpoint.url, "k", "{}", SECRET, int(time.time()) - 301).send()
    assert not endpoint.genuine(sign(SECRET, int(time.time()), b"{}"), b"{ }")


def test_an_endpoint_that_fails_first_is_tried_again_later_with_the_same_key(world: World, endpoint: Endpoint) -> None:
    refused: list[str] = []

    def fail_once(handler: BaseHTTPRequestHandler) -> bool:
        if refused:
            return False
        refused.append(str(handler.headers["Headgate-Key"]))
        handler.send_error(500)
        return True

    endpoint.before = fail_once
    world.tenant("acme", webhook=endpoint.url)
    world.spend("acme", 800)
    world.deliver()
    assert world.rows() == [("pending", 1)]
    assert world.deliver() == 0
    assert endpoint.requests == [], "not before its time"
    world.later_ms = 6_000
    assert world.deliver() == 1
    assert endpoint.keys == refused
    assert world.rows() == [("sent", 2)]


def test_a_silent_and_a_dead_endpoint_hold_up_nobody_and_are_given_up_after_a_day(world: World, endpoint: Endpoint) -> None:
    silent = Endpoint()
    go_on = threading.Event()
    silent.before = lambda _: go_on.wait(20)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        dead = f"http://127.0.0.1:{closed.server_port}/"
    try:
        for number in range(3):
            world.tenant(f"silent{number}", webhook=silent.url)
            world.tenant(f"dead{number}", webhook=dead)
        world.tenant("sound", webhook=endpoint.url)
        for tenant in ("silent0", "silent1", "silent2", "dead0", "dead1", "dead2", "sound"):
            world.spend(tenant, 800)
        world.deliver()
        assert len(endpoint.keys) == 1
        assert endpoint.keys[0].startswith("sound.")
        assert world.rows().count(("pending", 1)) == 2, "each endpoint was asked once"
        world.later_ms = DAY_MS + 1_000
        for _ in range(3):
            world.deliver()
        assert {state for state, _ in world.rows()} == {"dropped", "sent"}
        assert len(endpoint.keys) == 1
    finally:
        go_on.set()
        silent.close()


def test_nothing_is_sent_twice_while_the_recorder_is_away(world: World, endpoint: Endpoint) -> None:
    world.tenant("acme", webhook=endpoint.url)
    world.spend("acme", 900)
    world.record()
    for _ in range(3):
        world.notifier.deliver()
        world.later_ms += 3_600_000
    assert len(endpoint.keys) == len(set(endpoint.keys)) == 2
    world.record()
    world.notifier.deliver()
    assert world.rows() == [("sent", 1), ("sent", 1)]
    assert world.link.read("EXISTS", "hg1:notices") == 0, "the record says the same"


def test_a_process_that_is_killed_between_sending_and_marking_sends_the_same_key_once_more(
    world: World, endpoint: Endpoint, redis_server: RedisServer
) -> None:
    killed = threading.Event()

    def kill_it(handler: BaseHTTPRequestHandler) -> bool:
        if killed.is_set():
            return False
        handler.rfile.read(int(handler.headers["Content-Length"]))
        endpoint.requests.append(dict(handler.headers))
        os.kill(process.pid, signal.SIGKILL)
        killed.set()
        return True

    endpoint.before = kill_it
    world.tenant("acme", webhook=endpoint.url)
    world.spend("acme", 800)
    world.record()
    script = (
        "from orchestrator.assembly import make_app\n"
        "app = make_app()\n"
        "app.headgate_notifier.deliver()\n"
        "raise SystemExit('was not killed')\n"
    )
    environment = {**os.environ, **world.settings.environment(redis_url=redis_server.url, notify=None)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=Path(__file__).resolve().parents[2])
    assert process.wait(60) == -signal.SIGKILL
    world.client.delete("hg1:notifier")  # as its lease runs out
    assert world.deliver() >= 0
    assert len(endpoint.keys) == 1, "a try that began is not repeated at once"
    world.later_ms = 6_000
    world.deliver()
    world.deliver()
    assert len(endpoint.keys) == 2
    assert len(set(endpoint.keys)) == 1
    assert world.rows() == [("sent", 2)]


def test_one_process_delivers_at_a_time(world: World, endpoint: Endpoint) -> None:
    world.tenant("acme", webhook=endpoint.url)
    world.spend("acme", 800)
    world.record()
    assert world.link.call("orchestrator/notify/lease", "another", 30_000) == 1
    assert world.notifier.deliver() == 0
    assert endpoint.keys == []
    assert world.link.call("orchestrator/notify/lease", "another", 0) == 0
    assert world.deliver() == 3


def test_without_channels_or_a_secret_nothing_is_sent(world: World, endpoint: Endpoint) -> None:
    world.tenant("plain")
    world.tenant("acme", webhook=endpoint.url)
    world.spend("plain", 800)
    world.spend("acme", 800)
    world.record()
    world.another(webhook_secret=None, notify=None).deliver()
    world.record()
    assert endpoint.keys == []
    assert world.rows() == [("pending", 1), ("dropped", 1)]
    assert world.rows("hook") == [("dropped", 1)] * 2
    assert world.rows("log") == [("sent", 1)] * 2


def test_a_hook_that_raises_is_called_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tenant("acme")
    world.spend("acme", 800)
    monkeypatch.setattr(sys.modules[__name__], "hook", lambda _: 1 / 0)
    world.deliver()
    assert world.rows("hook") == [("pending", 1)]
    monkeypatch.undo()
    world.later_ms = 6_000
    world.deliver()
    assert len(TOLD) == 1


def test_levels_and_what_they_stop_are_as_they_were_after_redis_was_lost(world: World) -> None:
    world.tenant("acme", on_exceeded="suspend", warn_percent=50)
    world.spend("acme", 600)
    world.spend("acme", 100)
    world.spend("acme", 300)
    world.record()
    row, until = world.client.hgetall("hg1:level:acme"), world.client.zscore("hg1:stopped", "acme")
    assert row["day"].endswith("|111|1,1,1")
    assert until is not None
    world.client.flushall()
    world.recorder.prepare()
    assert world.client.hgetall("hg1:level:acme") == row
    assert world.client.zscore("hg1:stopped", "acme") == until
    world.record()
    world.deliver()
    assert len(TOLD) == 3, "what was entered before is told, and nothing is entered again"
