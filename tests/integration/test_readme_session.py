"""README's session: what it shows is typed, in its order, and prints what README says it prints."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pages import commands
from terminal import Terminal

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```(python|console)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
LOCAL = re.findall(r"`(article\(\)\.run_local\(.*?\))`", README)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A new directory; the home is where it is by default."""
    with tempfile.TemporaryDirectory(prefix="hgreadme") as name:
        yield Terminal(Path(name), Path(name) / ".headgate")


def without_time(line: str) -> str:
    """A line but for what it cost to the micro: seconds of work are paid for, and are never the same."""
    return re.sub(r" 50\d{3}$", " 50", line)


def test_the_session_of_the_readme_does_what_the_readme_shows(terminal: Terminal) -> None:
    typed: list[str] = []
    with ExitStack() as stacks:
        for kind, text in BLOCKS:
            if kind == "python":
                (terminal.directory / text.split("\n", 1)[0].removeprefix("# ")).write_text(text)
            elif text.startswith("$ "):
                for line, shown in commands(text):
                    command = line.split("  #")[0].rstrip()
                    typed.append(command)
                    if command.startswith("headgate up "):
                        stacks.enter_context(terminal.up(*command.split()[2:]))
                        continue
                    done = terminal.type("sh", "-c", command)
                    assert done.code == 0, (command, done)
                    printed = [each.rstrip() for each in done.out.splitlines()]
                    assert [without_time(each) for each in printed[: len(shown)]] == [without_time(each) for each in shown], (command, done)
    assert [command.split()[:2] for command in typed] == [
        ["headgate", "up"],
        ["headgate", "tenant"],
        ["python", "pipeline.py"],
        ["headgate", "whatif"],
    ]
    (local,) = LOCAL
    done = terminal.type("python", "-c", f"from pipeline import article; run = {local}; print(run.outcome, run.result(), run.cost_micros)")
    assert done.code == 0, done
    outcome, *_, cost = done.out.split()
    assert (outcome, 50_000 <= int(cost) <= 60_000) == ("degraded", True)


def test_the_two_commands_of_the_readme_are_verbs_of_dev() -> None:
    (first,) = (text for kind, text in BLOCKS if kind == "console" and not text.startswith("$ "))
    lines = [line.split("  #")[0].split() for line in first.splitlines()]
    assert {line[0] for line in lines} == {"./dev"}
    dev = (Path(__file__).parents[2] / "dev").read_text()
    assert all(f'"{line[1]}":' in dev for line in lines)
