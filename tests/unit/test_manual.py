"""docs/cli.md is what the commands say of themselves, and they all speak JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.cli.completion import SHELLS
from orchestrator.cli.exits import Exit
from orchestrator.cli.manual import HEAD, manual

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def leaves(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        path = f"{above} {name}".strip()
        if isinstance(command, click.Group):
            yield from leaves(command, path)
            if command.invoke_without_command:
                yield path, command
        else:
            yield path, command


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text() == manual(), "run `python -m orchestrator.cli.manual > docs/cli.md`"


def test_every_exit_code_is_on_the_page() -> None:
    for code in Exit:
        assert f"| {int(code)} |" in HEAD


def test_every_verb_says_what_it_does_and_prints_json() -> None:
    for path, command in leaves(main):
        assert command.help, path
        assert len(path.split()) <= 2, path
        assert any("--json" in each.opts for each in command.params), f"{path} has no --json"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_is_taught_to_complete(shell: str) -> None:
    said = CliRunner().invoke(main, ["completion", shell])
    assert said.exit_code == 0
    assert "_HEADGATE_COMPLETE" in said.output


def test_completion_offers_verbs_and_without_a_record_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import ShellComplete

    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path))
    offered = ShellComplete(main, {}, "headgate", "_HEADGATE_COMPLETE")
    assert [each.value for each in offered.get_completions([], "wat")] == ["watch"]
    assert offered.get_completions(["show"], "01") == []
