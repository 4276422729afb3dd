"""What Celery's result backend says of nodes: their states by the record, whether or not they were ever published."""

from __future__ import annotations

from typing import Any

from celery import states
from celery.exceptions import TaskRevokedError
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.celery_states import STATES
from orchestrator.node_task import DONE, NodeFailed, message_of
from orchestrator.store import tables as t


class Shown:
    """Nodes as `AsyncResult` has them. Their results are read from the run, not from Celery: a node that succeeded gives a constant."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def meta(self, task_id: str, run_id: str, generation: int, node: str) -> dict[str, Any] | None:
        """Return Celery's meta of a node that began or ended; None of any other, and where the record cannot be read."""
        columns = (t.node.c.state, t.node.c.outcome, t.node.c.reason, t.node.c.error)
        statement = select(*columns).where(t.node.c.run_id == run_id, t.node.c.generation == generation, t.node.c.node_id == node)
        try:
            with self.engine.connect() as connection:
                row = connection.execute(statement).one_or_none()
        except SQLAlchemyError:
            return None
        if row is None or (row.outcome is None and row.state != "running"):
            return None
        if row.outcome is None:
            return _meta(task_id, states.STARTED, None)
        state = STATES[row.outcome]
        if state == states.SUCCESS:
            return _meta(task_id, state, f"skipped: {row.reason or ''}" if row.outcome == "skipped" else DONE)
        if state == states.REVOKED:
            return _meta(task_id, state, TaskRevokedError(row.reason or row.outcome))
        return _meta(task_id, state, NodeFailed(message_of(row.error or "") or row.reason or row.outcome))


def _meta(task_id: str, state: str, result: Any) -> dict[str, Any]:
    return {"task_id": task_id, "status": state, "result": result, "traceback": None, "children": [], "date_done": None}
