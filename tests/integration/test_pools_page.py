"""docs/pools-and-limits.md, from its first line to its last."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from pages import commands
from terminal import Terminal, end

PAGE = (Path(__file__).parents[2] / "docs" / "pools-and-limits.md").read_text()
BLOCKS = re.findall(r"^```(python|sh|sh background)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
pytestmark = pytest.mark.timeout(200)


def test_every_command_of_the_page_does_what_the_page_says() -> None:
    ran = 0
    with tempfile.TemporaryDirectory(prefix="hgpools") as name, ExitStack() as stacks:
        terminal = Terminal(Path(name), Path(name) / ".headgate")
        for kind, text in BLOCKS:
            if kind == "python":
                (terminal.directory / text.split("\n", 1)[0].removeprefix("# ")).write_text(text)
                continue
            for command, shown in commands(text):
                ran += 1
                if kind == "sh":
                    done = terminal.type("sh", "-c", command)
                    assert (done.code, done.out.splitlines()) == (0, shown), (command, done)
                elif command.startswith("headgate up "):
                    stacks.enter_context(terminal.up(*command.split()[2:]))
                else:
                    log = stacks.enter_context((terminal.directory / "worker.log").open("w"))
                    stacks.callback(end, terminal.start(["sh", "-c", f"exec env {command}"], stdout=log, stderr=log))
    assert ran == 4
