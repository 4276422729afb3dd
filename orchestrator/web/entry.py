"""How Flower's own command comes to open our console: docs/decisions/flower.md says why so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

COMMAND = "flower.command"
"""The module of Flower's command. `celery` loads it as a plugin before it loads the app."""

Announce = Callable[[str], None]


def install(announce: Announce | None = None) -> None:
    """Let Flower's command build our console where the app is ours, and plain Flower for every other app.

    Does nothing in a process without Flower's command, such as a producer. `announce` is told the console's URL once it listens.
    """
    command: Any = sys.modules.get(COMMAND)
    if command is not None:
        command.Flower = _builder(announce)


def _builder(announce: Announce | None) -> Callable[..., Any]:
    def build(**given: Any) -> Any:
        """Return what serves the app `capp`; imported here, since `celery worker` loads Flower's command as well."""
        from flower.app import Flower

        from orchestrator.assembly import HeadgateApp
        from orchestrator.web.console import Console

        if isinstance(given.get("capp"), HeadgateApp):
            return Console(announce=announce, **given)
        return Flower(**given)

    return build
