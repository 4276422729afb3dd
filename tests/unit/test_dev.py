from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "dev", *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("dev_script", str(ROOT / "dev"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_loader("dev_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_alone_it_prints_one_line_for_each_verb() -> None:
    done = run()
    assert done.returncode == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["./dev", verb] for verb in ("demo", "test", "up", "lint", "bench", "chaos", "torture", "stops", "money", "plans", "headgate")
    ]


def test_an_unknown_verb_is_one_sentence_and_exit_2() -> None:
    done = run("tset")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "there is no verb 'tset'" in done.stderr


def test_a_python_that_is_too_old_is_told_so_in_one_sentence(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev.sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"^\./dev: Headgate needs Python 3\.11 or newer, this is 3\.9; .*$"):
        dev.main(["test"])


def test_the_script_imports_nothing_beyond_the_standard_library() -> None:
    modules = re.findall(r"^(?:import|from) (\w+)", (ROOT / "dev").read_text(), re.MULTILINE)
    assert set(modules) <= sys.stdlib_module_names


def test_every_version_is_pinned_exactly_and_no_host_is_named() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line) for line in lines)
