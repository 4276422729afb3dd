"""docs/quickstart.md, from its first line to its last."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pages import commands
from terminal import Terminal

PAGE = (Path(__file__).parents[2] / "docs" / "quickstart.md").read_text()
BLOCKS = re.findall(r"^```(python|sh|sh background)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A new directory; the home is where it is by default."""
    with tempfile.TemporaryDirectory(prefix="hgquick") as name:
        yield Terminal(Path(name), Path(name) / ".headgate")


def test_every_command_of_the_page_does_what_the_page_says(terminal: Terminal) -> None:
    ran = 0
    with ExitStack() as stacks:
        for kind, text in BLOCKS:
            if kind == "python":
                (terminal.directory / text.split("\n", 1)[0].removeprefix("# ")).write_text(text)
                continue
            for command, shown in commands(text):
                if kind == "sh background":
                    assert command.startswith("headgate up ")
                    stacks.enter_context(terminal.up(*command.split()[2:]))
                    continue
                done = terminal.type("sh", "-c", command)
                assert done.code == 0, (command, done)
                printed = done.out.splitlines()
                assert [line for line in shown if not any(each.startswith(line) for each in printed)] == [], (command, done.out)
                ran += 1
    assert ran >= 12
    assert not (terminal.home / "stack.json").exists()
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(terminal.home) not in left


def test_the_page_shows_the_example_of_the_user_project() -> None:
    from test_user_project import PIPELINE

    assert ("python", PIPELINE) in BLOCKS
