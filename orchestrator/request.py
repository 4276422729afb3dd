"""The worker's request of a node: an execution that ended because its node was cancelled is revoked, to Celery and to Flower."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery.utils.imports import symbol_by_name
from celery.worker.request import Request

from orchestrator.node_task import NodeCancelled


class NodeRequest(Request):
    """Celery's Request; also mixed in before a request class of the task's own."""

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> Any:
        """As Celery's; a node that was cancelled while it ran is announced as revoked, which Celery does of what has not begun."""
        exc = exc_info.exception
        exc = getattr(exc, "exc", exc)  # billiard's ExceptionWithTraceback
        if not isinstance(exc, NodeCancelled):
            return super().on_failure(exc_info, *args, **options)
        if not self._already_revoked:
            self._announce_revoked(str(exc), False, None, False)
        return None


def request_of(base: Any) -> type[Request]:
    """Return the request class `base`, or that of its name, as a node's."""
    return _mixed(symbol_by_name(base))


@cache
def _mixed(base: type[Request]) -> type[Request]:
    if issubclass(base, NodeRequest):
        return base
    if base is Request:
        return NodeRequest
    return type(base.__name__, (NodeRequest, base), {"__module__": base.__module__})
