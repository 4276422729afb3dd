"""Celery's events of nodes that got their outcome while they waited: no worker says anything of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from celery import states
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from orchestrator import keys
from orchestrator.celery_states import STATES
from orchestrator.pieces import pieces
from tenancy.errors import Unavailable

if TYPE_CHECKING:
    from orchestrator.kernel import Kernel

SHOWN_MAX: Final = 500
"""Nodes that one call shows, at most: the record has all of them, and a page of Flower's has room for fewer."""

log = logging.getLogger(__name__)


def show_unrun(kernel: Kernel, rg: str, nodes: Iterable[str], reason: str) -> int:
    """Send the events by which Flower knows of those of these nodes that were given up: REVOKED, or SUCCESS with the result "skipped:
    reason"; return how many. Only shows what is in state already: where Celery's events are away, that is a warning.
    """
    shown = 0
    try:
        for piece in pieces(islice(nodes, SHOWN_MAX)):
            ended = list(_ended(kernel, rg, piece))
            _announce(kernel.app, rg, ended, reason)
            shown += len(ended)
    except (KombuError, RedisError, Unavailable, OSError) as error:
        log.warning(
            "what became of nodes of run %s that waited is not shown to Celery: %s", rg, error, extra={"run": rg.rpartition(".")[0]}
        )
    return shown


def _ended(kernel: Kernel, rg: str, nodes: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield node, outcome and task of those that were given up."""
    outcomes, specs = kernel.link.read_at_once(("HMGET", keys.of_run("state", rg), *nodes), ("HMGET", keys.of_run("spec", rg), *nodes))
    for node, outcome, spec in zip(nodes, outcomes, specs, strict=True):
        if outcome == "skipped" or STATES.get(outcome) == states.REVOKED:
            yield node, outcome, str(json.loads(spec or "{}").get("task", ""))


def _announce(app: Any, rg: str, ended: Sequence[tuple[str, str, str]], reason: str) -> None:
    if not ended:
        return
    with app.events.default_dispatcher() as dispatcher:
        for node, outcome, task in ended:
            task_id = f"{rg}.{node}"
            # Without a name Flower's pages do not know what it is.
            dispatcher.send("task-sent", uuid=task_id, name=task, args="()", kwargs="{}", root_id=task_id, parent_id=None, retries=0)
            if outcome == "skipped":
                dispatcher.send("task-succeeded", uuid=task_id, result=repr(f"skipped: {reason}"), runtime=0.0)
            else:
                dispatcher.send("task-revoked", uuid=task_id, terminated=False, signum=None, expired=False)
