"""docs/migrate.md, from its first line to its last."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pages import commands
from terminal import Terminal, end

from orchestrator.embedded import RedisServer

PAGE = (Path(__file__).parents[2] / "docs" / "migrate.md").read_text()
BLOCKS = re.findall(r"^```(python|sh|sh stack|sh worker)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def terminal(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A new directory, and a broker that is somebody's own."""
    monkeypatch.setenv("SHOP_BROKER", redis_server.url)
    monkeypatch.setenv("SHOP_RESULTS", f"celery.backends.redis:RedisBackend+socket://{redis_server.socket}?virtual_host=1")
    with tempfile.TemporaryDirectory(prefix="hgmigrate") as name:
        yield Terminal(Path(name), Path(name) / ".headgate")


def test_every_command_of_the_page_does_what_the_page_says(terminal: Terminal) -> None:
    ran = 0
    with ExitStack() as stack:
        workers: dict[str, ExitStack] = {}
        for kind, text in BLOCKS:
            if kind == "python":
                (terminal.directory / text.split("\n", 1)[0].removeprefix("# ")).write_text(text)
                continue
            for command, shown in commands(text):
                if kind == "sh stack":
                    stack.enter_context(terminal.up(*command.split()[2:]))
                elif kind == "sh worker":
                    if command in workers:
                        workers[command].close()  # a new release takes the place of the old one
                    workers[command] = stack.enter_context(ExitStack())
                    _work(terminal, command, len(workers), workers[command])
                else:
                    done = terminal.type("sh", "-c", command)
                    assert done.code == 0, (command, done)
                    printed = done.out.splitlines()
                    assert [line for line in shown if not any(each.startswith(line) for each in printed)] == [], (command, done)
                ran += 1
    assert ran >= 15


def _work(terminal: Terminal, command: str, number: int, stack: ExitStack) -> None:
    """Start a worker; it ends with `stack`."""
    log = terminal.directory / f"worker{number}.log"
    with log.open("w") as out:
        process = terminal.start([*command.split(), "-n", f"w{number}@%h", "-l", "INFO"], stdout=out, stderr=out)
    stack.callback(end, process)
    deadline = time.monotonic() + 30
    while " ready." not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
