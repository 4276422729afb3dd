"""docs/prices.md, file by file and command by command."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from pages import commands
from terminal import Terminal

PAGE = (Path(__file__).parents[2] / "docs" / "prices.md").read_text()
BLOCKS = re.findall(r"^```(python|json|toml|sh|sh background)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {"python": "press.py", "json": "december.json", "toml": "acme.toml"}
pytestmark = pytest.mark.timeout(300)


def beginning(line: str) -> list[str]:
    return line.split()


def test_every_command_of_the_page_does_what_the_page_says() -> None:
    ran = 0
    with tempfile.TemporaryDirectory(prefix="hgprices") as name, ExitStack() as stacks:
        terminal = Terminal(Path(name), Path(name) / ".headgate")
        for kind, text in BLOCKS:
            if kind in FILES:
                (terminal.directory / FILES[kind]).write_text(text)
                continue
            for command, shown in commands(text):
                if kind == "sh background":
                    stacks.enter_context(terminal.up(*command.split()[2:]))
                    continue
                done = terminal.type("sh", "-c", command)
                assert done.code == 0, (command, done)
                printed = [beginning(line) for line in done.out.splitlines()]
                missing = [line for line in shown if not any(each[: len(beginning(line))] == beginning(line) for each in printed)]
                assert missing == [], (command, done.out)
                ran += 1
    assert ran >= 11
