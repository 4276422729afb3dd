"""A canvas that publishes single tasks, for the tests that must fail when it is used. Workers and producers obey the same flag."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from orchestrator import canvas

FLAG = "TESTS_SINGLES"
"""Names, in the environment, a file that turns it on."""

carrying = canvas.signatures


def signatures(*arguments: Any) -> list[Any]:
    """As `canvas.signatures`; without chain and chord while the flag is there."""
    found = carrying(*arguments)
    return [_bare(signature) for signature in found] if flag().exists() else found


def install() -> None:
    """Replace the canvas of this process."""
    assert FLAG in os.environ
    canvas.signatures = signatures


def remove() -> None:
    """Give this process its canvas back."""
    canvas.signatures = carrying


def flag() -> Path:
    return Path(os.environ[FLAG])


def _bare(signature: Any) -> Any:
    made = canvas._with(signature)
    for name in ("chain", "chord"):
        made["options"].pop(name, None)
    return made
