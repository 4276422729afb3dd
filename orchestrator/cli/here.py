"""The client of a command, by the settings of this process; what is heavy is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.client import Client


def running_here() -> Client:
    """Return a client of the stack that runs here; raises as `service.running`."""
    from orchestrator.cli.service import running
    from orchestrator.settings import Settings

    return running(Settings.load())


def recorded_here() -> Client:
    """Return a client that can read the record that is here; raises as `service.recorded`."""
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings

    return recorded(Settings.load())
