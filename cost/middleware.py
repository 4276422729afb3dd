"""Signal middleware: Celery's own signals settle what an execution used.

What Celery says, where, and what follows; the rows are held to by tests/integration/test_signals.py.

===================== ============================================== ==========================================================
end of an execution   signals                                        the money
===================== ============================================== ==========================================================
success               task_success in the process                    settled: what it used
failure               task_failure in the process                    settled: what it used
retry                 before_task_publish, then task_retry, in the   settled; the next execution, which may begin before that, has
                      process; the same id runs again                a claim of its own
ignored, rejected     task_postrun only, in the process              settled: what it used; so a node that was cancelled while it ran,
                                                                     of which the main process then says task_revoked
revoked, expired      task_revoked in the main process, no prerun    there was no execution
terminated            task_revoked(terminated) in the main process   what it had noted: settled, or void
hard time limit       task_failure twice in the main process, and    what it had noted, at the first; the rest changes nothing
                      a late task_postrun(None) in the process
worker lost           task_failure in the main process               what it had noted
worker lost, requeued none                                           closed as lost by the next execution
anything else         none                                           the sweeper: what it had noted
===================== ============================================== ==========================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from celery import current_task, signals
from redis import RedisError

from tenancy.errors import HeadgateError

from .money import write_cats
from .task_ledger import Claim, Terms
from .task_meter import Metered, claim_in, claim_of, running

__all__ = ["Nodes", "Spent", "connect", "connect_tasks", "disconnect", "write_cats"]

logger = logging.getLogger(__name__)

_UID = "headgate-settle"
BY = "signal"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spent:
    """What one execution of a node used, by category in micros; the key of its settlement."""

    run_id: str
    generation: int
    node_id: str
    attempt: int
    cats: str
    """`llm=30000,compute=12`, sorted; '' when nothing was used."""
    price_version: str = ""
    """The price table that made amounts of it; '' where whoever settles does not know."""
    lines: str = ""
    """What it used by unit, as `cost.prices.write_lines` has it; '' where that is on record or not known."""


class Nodes(Protocol):
    """What settles graph nodes; each of its methods may be repeated."""

    def settle(self, spent: Spent) -> None:
        """Settle what an execution said that it used."""

    def settle_ended(self, task_id: str) -> None:
        """Settle the execution of a node that was ended from outside, if one was, with what it had noted."""

    def give_up(self, node: list[Any], delivery: list[Any]) -> None:
        """Close the execution of a node whose process was killed on purpose; node and delivery as its message's headers have them."""


# -- graph nodes -------------------------------------------------------------------------------------------------------------


def connect(nodes: Nodes) -> None:
    """Settle each execution of a graph node when Celery says that it ended; a second call takes the place of the first.

    The gate leaves a `Spent` on a node's request as `headgate_spent`. A signal that never comes, or a settlement that fails, is made up
    for by the sweeper: the settlement is keyed by the execution and counts once.
    """

    def on_end(sender: Any = None, task_id: str = "", **_: Any) -> None:
        spent = getattr(sender.request, "headgate_spent", None)
        if spent is not None:
            sender.request.headgate_spent = None
            _try(lambda: nodes.settle(spent), f"{spent.run_id}.{spent.node_id} attempt {spent.attempt}")
        elif task_id:  # a failure without a word of the gate: the main process may speak, of a process that is gone
            _try(lambda: nodes.settle_ended(task_id), task_id)

    def on_postrun(sender: Any = None, **_: Any) -> None:
        spent = getattr(sender.request, "headgate_spent", None)  # none where another signal came before
        if spent is not None:
            on_end(sender)

    def on_revoked(request: Any = None, terminated: bool = False, **_: Any) -> None:
        node, delivery = getattr(request, "headgate", None), getattr(request, "headgate_delivery", None)
        if terminated and node and delivery:
            _try(lambda: nodes.give_up(node, delivery), str(request.id))

    ends = dict.fromkeys(("task_success", "task_failure", "task_retry"), on_end)
    _connect("nodes", {**ends, "task_postrun": on_postrun, "task_revoked": on_revoked})


# -- ordinary tasks ----------------------------------------------------------------------------------------------------------


def connect_tasks() -> None:
    """Meter and settle each execution of an ordinary task that `BudgetRequest` gave a claim, of whichever app; may be repeated."""
    _connect(
        "tasks",
        {
            "task_prerun": _on_prerun,
            "before_task_publish": _on_publish,
            "task_success": _on_end,
            "task_failure": _on_end,
            "task_retry": _on_end,
            "task_postrun": _on_postrun,
            "task_revoked": _on_revoked,
        },
    )


def _on_prerun(sender: Any = None, **_: Any) -> None:
    claim, terms = claim_in(sender.request), _terms_of(sender)
    if claim is not None and terms is not None:
        running[claim] = Metered(terms.ledger, claim)


def _on_end(sender: Any = None, task_id: str = "", **_: Any) -> None:
    claim = claim_in(sender.request) or claim_of(task_id)
    if claim is None:
        return
    if (metered := running.get(claim)) is not None:
        _report(metered)
    else:
        _close(sender, claim)  # the main process speaks, of a process that is gone


def _on_publish(headers: Any = None, **_: Any) -> None:
    """A retry is published before its execution is over: say so, lest whoever receives it takes this execution for lost."""
    claim = claim_in(current_task.request) if current_task else None
    if claim is not None and claim in running and claim.task_id == (headers or {}).get("id"):
        _try(running[claim].leaving, f"{claim.name}[{claim.task_id}]")


def _on_postrun(sender: Any = None, state: str | None = None, **_: Any) -> None:
    claim = claim_in(sender.request)
    metered = running.pop(claim, None) if claim is not None else None
    if metered is None:
        return
    # No state: the process is being killed, and the main process has closed the execution or is about to.
    if not metered.reported and state is not None:
        _report(metered)
    metered.leave()


def _on_revoked(sender: Any = None, request: Any = None, **_: Any) -> None:
    if (claim := claim_in(request)) is not None:
        _close(sender, claim)


def _report(metered: Metered) -> None:
    metered.reported = True
    claim = metered.claim
    answer = _try(lambda: metered.report(BY), f"{claim.name}[{claim.task_id}]")
    if answer in ("conflict", "unknown"):
        logger.error("%s[%s] attempt %s: its usage was not charged: %s", claim.name, claim.task_id, claim.attempt, answer)


def _close(task: Any, claim: Claim) -> None:
    if (terms := _terms_of(task)) is not None:
        _try(lambda: terms.ledger.close(claim, BY), f"{claim.name}[{claim.task_id}]")


def _terms_of(task: Any) -> Terms | None:
    found: Terms | None = getattr(task.app, "headgate_terms", None)
    return found


# -- both --------------------------------------------------------------------------------------------------------------------


def disconnect() -> None:
    """Undo `connect` and `connect_tasks`; from then on only the sweeper settles."""
    for name in ("task_prerun", "task_success", "task_failure", "task_retry", "task_postrun", "task_revoked", "before_task_publish"):
        for whose in ("nodes", "tasks"):
            getattr(signals, name).disconnect(dispatch_uid=f"{_UID}-{whose}-{name}")


def _connect(whose: str, table: dict[str, Callable[..., None]]) -> None:
    for name, receiver in table.items():
        uid = f"{_UID}-{whose}-{name}"
        getattr(signals, name).disconnect(dispatch_uid=uid)
        getattr(signals, name).connect(receiver, weak=False, dispatch_uid=uid)


def _try(settle: Callable[[], T], what: str) -> T | None:
    try:
        return settle()
    except (HeadgateError, RedisError) as error:
        logger.warning("settlement of %s is left to the sweeper: %s", what, error)
        return None
