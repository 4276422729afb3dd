"""The console in the running product: a real stack with its Flower, on each kind of Redis, and Flower started by hand beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from html import unescape
from pathlib import Path
from urllib.error import URLError

import psutil
import pytest
import redis
from consoles import answer, opened
from running import until

from orchestrator.assembly import producer_app
from orchestrator.embedded import RedisServer, Stack
from orchestrator.embedded.redis_server import find_binary
from orchestrator.settings import Settings
from orchestrator.web.queues import Ordinary, read_lengths

_ROW = re.compile(r"<tr>\s*<td>([^<]*)</td>\s*<td>(?:<span[^>]*>)?([^<]*)(?:</span>)?</td>\s*<td[^>]*>([^<]*)</td>\s*</tr>")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def rows(page: str) -> dict[tuple[str, str], str]:
    """(queue, pool) -> messages of the Broker page; an ordinary queue's pool is a dash."""
    return {(unescape(queue), unescape(pool)): messages for queue, pool, messages in _ROW.findall(page)}


def opens(url: str) -> bool:
    try:
        return answer(f"{url}/healthcheck") == (200, "OK")
    except URLError:
        return False


def wait_in_line(settings: Settings, messages: dict[str, int]) -> None:
    """Publish for each tenant so many messages that nobody takes: no worker serves their pool."""
    app = producer_app(settings)
    for tenant, count in messages.items():
        for _ in range(count):
            app.send_task("headless", headers={"tenant": tenant, "pool": "idle"}, priority=3, ignore_result=True)
    app.close()


# -- the three kinds of Redis -----------------------------------------------------------------------------------------------


@contextmanager
def listening(directory: Path, scheme: str) -> Iterator[str]:
    """A Redis on a port of the loopback interface, with TLS for `rediss`; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = ["--save", "", "--dir", str(directory), "--bind", "127.0.0.1"]
    query = ""
    if scheme == "redis":
        given += ["--port", str(port)]
    else:
        key, certificate = directory / "key.pem", directory / "certificate.pem"
        subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run([*made, *subject], check=True, capture_output=True)
        given += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
        given += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
        query = f"?ssl_cert_reqs=required&ssl_ca_certs={certificate}"
    log = directory / "redis.log"
    with log.open("wb") as output:
        server = subprocess.Popen([find_binary(), *given], stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: server.poll() is not None or "Ready to accept" in log.read_text())
        yield f"{scheme}://127.0.0.1:{port}/0{query}"
    finally:
        server.terminate()
        server.wait(10)


def speaks_tls() -> bool:
    """Whether the redis-server here was built with TLS; one without knows none of its settings."""
    done = subprocess.run([find_binary(), "--port", "0", "--tls-port", "1"], capture_output=True, text=True, timeout=20, check=False)
    return "Bad directive" not in done.stdout + done.stderr


@pytest.mark.parametrize("scheme", ["redis+socket", "redis", "rediss"])
def test_the_stacks_broker_page_lists_every_kind_of_queue_with_its_length(scheme: str, tmp_path: Path, home: Path) -> None:
    if scheme == "rediss" and not (shutil.which("openssl") and speaks_tls()):
        pytest.skip("needs openssl, and a redis-server that was built with TLS")
    with nullcontext() if scheme == "redis+socket" else listening(tmp_path, scheme) as url:  # the stack's own is on a unix socket
        settings = Settings(home=home, redis_url=url)
        with Stack(settings, workers=1, concurrency=1, beat=False) as stack:
            assert stack.console_url is not None
            wait_in_line(settings, {"acme": 3, "beta": 1})
            until(lambda: opens(str(stack.console_url)))
            status, page = answer(f"{stack.console_url}/broker")
            assert status == 200
            assert rows(page) == {
                ("pool.default", "default"): "0",
                ("pool.idle", "idle"): "4",
                ("system", "—"): "0",
                ("t.acme.high", "idle"): "3",
                ("t.beta.high", "idle"): "1",
            }
            assert f"{scheme}://" in page
            for path in ("/", "/workers", "/tasks"):
                assert answer(stack.console_url + path)[0] == 200, path


# -- Flower beside a stack, started by hand -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served() -> Iterator[Settings]:
    """A stack with one worker and no console, and messages of two tenants in line."""
    home = Path(tempfile.mkdtemp(prefix="hg"))
    settings = Settings(home=home)
    with Stack(settings, workers=1, concurrency=1, beat=False, console=False):
        wait_in_line(settings, {"acme": 3, "beta": 1})
        yield settings
    shutil.rmtree(home, ignore_errors=True)


HEADGATE = [str(Path(sys.executable).with_name("headgate")), "console", "--port=0", "--json"]
CELERY = [sys.executable, "-P", "-m", "celery", "-A", "orchestrator.app", "flower", "--port=0", "--address=127.0.0.1"]
WAYS = {"headgate console": (HEADGATE, r'"url": "(.*)"'), "celery flower": (CELERY, r"Visit me at (\S+)")}


@pytest.mark.parametrize("way", WAYS)
def test_both_ways_in_open_the_console(way: str, served: Settings) -> None:
    argv, said = WAYS[way]
    with opened(served, argv, said) as url:
        page = answer(f"{url}/broker")[1]
        assert rows(page)["t.acme.high", "idle"] == "3"
        assert re.search(r"4 messages in\s+2 queues of tenants\.", page)
        found = answer(f"{url}/broker?search=beta")[1]
        assert list(rows(found)) == [("t.beta.high", "idle")]
        assert answer(f"{url}/no-such-page")[0] == 404


def test_a_search_comes_back_as_text_and_never_as_markup(served: Settings) -> None:
    with opened(served, *WAYS["celery flower"]) as url:
        status, page = answer(f"{url}/broker?search=%22%3E%3Cscript%3Ealert(1)%3C/script%3E%7B%7B1%7D%7D")
        assert status == 200
        assert "<script>alert" not in page
        assert 'value="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{1}}"' in page
        assert "No queue matches." in page


def test_authentication_and_prefix_of_flowers_hold_and_open_pages_name_no_tenant(served: Settings) -> None:
    argv = [*HEADGATE, "--basic-auth=ann:secret", "--url-prefix=ops"]
    with opened(served, argv, WAYS["headgate console"][1]) as url:
        assert url.endswith("/ops")
        assert answer(f"{url}/broker")[0] == 401
        assert answer(f"{url}/api/queues/length")[0] == 401
        assert answer(f"{url}/broker", "ann:wrong")[0] == 401
        status, page = answer(f"{url}/broker", "ann:secret")
        assert status == 200
        assert rows(page)["t.acme.high", "idle"] == "3"
        assert 'href="/ops/workers"' in page
        status, text = answer(f"{url}/api/queues/length", "ann:secret")
        assert {"name": "t.acme.high", "messages": 3, "pool": "idle"} in json.loads(text)["active_queues"]
        assert json.loads(text)["left_out"] == 0
        for path in ("/metrics", "/healthcheck"):
            status, text = answer(url + path)
            assert status == 200
            assert "acme" not in text
            assert "beta" not in text


def test_the_api_is_closed_until_flower_is_told_to_open_it(served: Settings) -> None:
    with opened(served, *WAYS["celery flower"]) as url:
        assert answer(f"{url}/api/queues/length")[0] == 401
    with opened(served, *WAYS["celery flower"], FLOWER_UNAUTHENTICATED_API="true") as url:
        assert answer(f"{url}/api/queues/length")[0] == 200


def test_headgate_console_is_for_this_machine_unless_told_otherwise(served: Settings) -> None:
    with opened(served, *WAYS["headgate console"]) as url:
        port = int(url.rsplit(":", 1)[1])
        listening = [each.laddr.ip for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.laddr.port == port]
        assert listening == ["127.0.0.1"]
        env = {**os.environ, **served.environment()}
        second = subprocess.run(
            [*HEADGATE[:2], f"--port={port}"], env=env, cwd=served.home, capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 2
        assert "that port is taken; name a free one, such as --port=5556" in second.stderr
        assert "Traceback" not in second.stderr


def test_without_redis_the_broker_page_says_so_and_comes_back_with_it(home: Path, redis_server: RedisServer) -> None:
    with opened(Settings(home=home, redis_url=redis_server.url), *WAYS["celery flower"]) as url:
        assert answer(f"{url}/broker")[0] == 200
        redis_server.kill()
        status, page = answer(f"{url}/broker")
        assert status == 503
        assert "Redis does not answer." in page
        assert "Traceback" not in page
        redis_server.start()
        assert answer(f"{url}/broker")[0] == 200


def test_ordinary_queues_are_counted_over_all_steps_of_priority(settings: Settings) -> None:
    app = producer_app(settings)
    for priority in (0, 3, 5, 9):
        app.send_task("headgate.sweep", queue="system", priority=priority, ignore_result=True)
    found = read_lengths(app.headgate_kernel.link, Ordinary(("system",), (0, 3, 6, 9), "\x06\x16"))
    assert [(each.name, each.messages) for each in found.whole] == [("system", 4)]
    app.close()


# -- five thousand tenants ------------------------------------------------------------------------------------------------


def test_five_thousand_tenants_fit_on_a_page_that_says_what_it_leaves_out(home: Path, redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.client_url) as client:
        client.sadd("hg1:pools", "default")
        client.hset("hg1:depth:default", mapping={f"tenant-{each:04}|{level}": each % 97 + 1 for each in range(5_000) for level in (3, 5)})
        client.hset("hg1:depth:default", "quiet|5", 1)
    with opened(Settings(home=home, redis_url=redis_server.url), *WAYS["celery flower"]) as url:
        status, page = answer(f"{url}/broker")
        assert status == 200
        assert "The 500 longest are shown, 9,501 are left out: search to see them." in page
        assert len([queue for queue, _ in rows(page) if queue.startswith("t.")]) == 500
        assert ("t.quiet.normal", "default") not in rows(page)
        assert rows(answer(f"{url}/broker?search=quiet")[1]) == {("t.quiet.normal", "default"): "1"}


# -- a browser -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: on Debian, apt-get install chromium")
@pytest.mark.parametrize(("theme", "preferred"), [("light", 1), ("dark", 0)])
def test_a_browser_shows_the_page_in_the_theme_that_is_preferred(theme: str, preferred: int, served: Settings, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    with opened(served, *WAYS["celery flower"]) as url:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
        argv = [CHROMIUM, *flags, f"--blink-settings=preferredColorScheme={preferred}", "--dump-dom", f"{url}/broker"]
        page = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=True).stdout
        assert re.search(rf'<html[^>]*data-bs-theme="{theme}"', page)
        assert rows(page)["t.acme.high", "idle"] == "3"
