"""docs/schedules.md, file by file and command by command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from pages import commands
from terminal import Terminal

PAGE = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
BLOCKS = re.findall(r"^```(python|sh|sh background)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
pytestmark = pytest.mark.timeout(300)


TYPING = """
import json, shlex, sys
from click.testing import CliRunner
from orchestrator.cli import main
for line in sys.stdin:
    done = CliRunner().invoke(main, shlex.split(line)[1:])
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
"""
"""Types one command after the other in one process: each of its own would spend its time on imports."""


def test_every_command_of_the_page_does_what_the_page_says() -> None:
    background = next(text for kind, text in BLOCKS if kind == "sh background")
    typed = [each for kind, text in BLOCKS if kind == "sh" for each in commands(text)]
    with tempfile.TemporaryDirectory(prefix="hgschedules") as name:
        terminal = Terminal(Path(name), Path(name) / ".headgate")
        (terminal.directory / "reports.py").write_text(next(text for kind, text in BLOCKS if kind == "python"))
        with terminal.up(*background.split()[3:]):
            argv = [sys.executable, "-c", TYPING]
            process = subprocess.Popen(
                argv,
                cwd=name,
                env=terminal.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            try:
                answered, _ = process.communicate("".join(f"{command}\n" for command, _ in typed), timeout=200)
            finally:
                process.kill()
    for (command, shown), line in zip(typed, answered.splitlines(), strict=True):
        code, out, err = json.loads(line)
        assert code == 0, (command, out, err)
        printed = [each.split() for each in out.splitlines()]
        missing = [each for each in shown if not any(words[: len(each.split())] == each.split() for words in printed)]
        assert missing == [], (command, out)
    assert len(typed) >= 10
