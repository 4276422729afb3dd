"""Consoles as tests open them: Flower beside a stack, as people start it, and plain requests to it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from running import until

from orchestrator.settings import Settings

HEADGATE = [sys.executable, "-P", "-c", "from orchestrator.cli import main; main()", "console", "--port=0", "--json"]
SAID = r'"url": "(.*)"'


def answer(url: str, user: str | None = None, **headers: str) -> tuple[int, str]:
    """Status and body of a GET."""
    request = Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    if user is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    return _answered(request)


def told(url: str, user: str | None = None) -> Any:
    """The JSON that a GET answers."""
    status, text = answer(url, user)
    assert status == 200, (url, status, text)
    return json.loads(text)


def post(url: str, body: Mapping[str, Any], user: str | None = None, token: str | None = "t", **headers: str) -> tuple[int, Any]:
    """Status and JSON of a POST as our pages send it: with the token of the cookie in a header."""
    request = Request(url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    if token is not None:
        request.add_header("Cookie", f"_xsrf={token}")
        request.add_header("X-XSRFToken", token)
    if user is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    status, text = _answered(request)
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def _answered(request: Request) -> tuple[int, str]:
    try:
        with urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def opened(settings: Settings, argv: list[str], said: str = SAID, **environment: str) -> Iterator[str]:
    """Flower by `argv`; gives its URL once it listens, which its output tells by the pattern `said`."""
    env = {**os.environ, **settings.environment(), **environment}
    log = settings.home / f"console-{len(list(settings.home.glob('console-*')))}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env=env, cwd=settings.home, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: process.poll() is not None or re.search(said, log.read_text()), 60)
        found = re.search(said, log.read_text())
        assert found is not None, log.read_text()
        yield found[1].rstrip("/")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
