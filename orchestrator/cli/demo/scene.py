"""The scene: what every part of the demo plays on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.loading import SHIPPED, load_tasks
from orchestrator.settings import Settings
from tenancy.errors import Conflict

from .board import Board

TENANTS = ("acme", "birch", "cedar")


@dataclass(frozen=True)
class Scene:
    """A running stack with the three tenants, a client of it, and the board that the audience sees."""

    stack: Stack
    client: Client
    board: Board
    workers: int
    slots: int
    """Processes of each worker."""
    documents: ModuleType
    """The shipped task family: found by name, since tasks import the orchestrator and not the other way round."""
    figures: dict[str, Any]
    """What is shown, as data: each part adds its own."""

    @classmethod
    @contextmanager
    def open(cls, stack: Stack, board: Board, workers: int, slots: int, figures: dict[str, Any]) -> Iterator[Scene]:
        """Connect to a stack whose settings are in the environment, and create the tenants."""
        load_tasks(())
        client = Client(Settings.load())
        try:
            for tenant in TENANTS:
                with suppress(Conflict):  # the home was given, and this is not the first demo in it
                    client.tenants.create(tenant)
            yield cls(stack, client, board, workers, slots, importlib.import_module(f"{SHIPPED}.documents"), figures)
        finally:
            client.engine.dispose()
            client.kernel.link.close()
            client.kernel.app.close()
