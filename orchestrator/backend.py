"""The result backend: stock Redis, except that a chord of nodes is counted by our state."""

from __future__ import annotations

import logging
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend
from celery.canvas import Signature, maybe_signature
from celery.exceptions import TaskRevokedError, TimeLimitExceeded

from orchestrator import canvas
from orchestrator.cancellation import node_of
from orchestrator.node_task import MESSAGE_CHARS, NodeFailed, describe, message_of

logger = logging.getLogger(__name__)


class NodeBackend(RedisBackend):
    """One counter for chords and counted joins: the state's, which counts each node once.

    Tasks outside graphs fall through to stock behaviour.
    """

    def apply_chord(self, header_result_args: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        """Nothing to prepare for a chord of nodes."""
        if not canvas.is_node(body):
            return super().apply_chord(header_result_args, body, *args, **kwargs)
        return None

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """The size of a chord of nodes is in the plan."""
        if not canvas.is_group_of_nodes(group_id):
            super().set_chord_size(group_id, chord_size)

    def on_chord_part_return(self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any) -> Any:
        """Publish the body when `finish` said that it is due."""
        if not getattr(request, "headgate", None):
            return super().on_chord_part_return(request, state, result, propagate=propagate, **kwargs)
        due = getattr(request, "headgate_due", None) or set()
        body: Signature = maybe_signature(request.chord, app=self.app)
        if due & canvas.heads_of(body):
            canvas.publish(self.app, [body])
        return None

    def mark_as_failure(self, task_id: str, exc: BaseException, *args: Any, **kwargs: Any) -> Any:
        """As stock, and a node that failed is stored as FAILURE although results of nodes are not, so that Celery's tools can see it.

        A hard time limit, which the worker's main process enforces, ends the node's execution here.
        """
        request: Any = kwargs.get("request")
        node, delivery = getattr(request, "headgate", None), getattr(request, "headgate_delivery", None)
        if node and delivery:
            request.chain = request.chord = None  # what follows from a failed node is in state, not in its message
            ended = not isinstance(exc, TimeLimitExceeded) or self.app.headgate_kernel.launcher.time_out(node, delivery, exc)
            if ended:
                self._show_failure(task_id, exc, request)
            kwargs["store_result"] = False
        return super().mark_as_failure(task_id, exc, *args, **kwargs)

    def mark_as_revoked(self, task_id: str, reason: str = "", request: Any = None, **options: Any) -> Any:
        """As stock; of a node nothing is counted down here, and a backend that is away keeps nobody from acknowledging its message."""
        if not getattr(request, "headgate", None):
            return super().mark_as_revoked(task_id, reason, request=request, **options)
        try:
            self.store_result(task_id, TaskRevokedError(reason[:MESSAGE_CHARS]), states.REVOKED, request=request)
        except Exception as error:  # noqa: BLE001 - the outcome is in state; this only shows it
            logger.warning("that %s was revoked is not shown to Celery: %s", task_id, error)
        return None

    def _get_task_meta_for(self, task_id: str) -> Any:
        """As stock; of a node that nothing is stored of, such as one that was never published, what the record says."""
        meta = super()._get_task_meta_for(task_id)
        node = node_of(task_id) if meta["status"] == states.PENDING else None
        return (node and self.app.headgate_shown.meta(task_id, *node)) or meta

    def _show_failure(self, task_id: str, exc: BaseException, request: Any) -> None:
        try:
            self.store_result(task_id, bounded(exc), states.FAILURE, request=request)
        except Exception as error:  # noqa: BLE001 - the outcome is in state; this only shows it
            logger.warning("the failure of %s is not shown to Celery: %s", task_id, error)


def bounded(exc: BaseException) -> BaseException:
    """Return `exc`, or where its text is too long to be kept, or cannot be told, an error that says as much of it as the record does."""
    try:
        if len(repr(exc.args)) <= MESSAGE_CHARS:
            return exc
    except Exception:  # noqa: BLE001, S110 - a user's class
        pass
    return NodeFailed(message_of(describe(exc)))
