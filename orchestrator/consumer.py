"""The worker's consumer: Celery's own, which finishes what runs before it lets go of the pool, and gives up slots only when they are idle.

Stock Celery 5.7, told to end, discards each job whose process has not said yet that it began. The process runs it all the same, and then
waits for 30 s (`GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT` in billiard) for its parent to take note of an end that nobody reads any
more. So the event loop goes on here until every job that was handed to the pool is over, and only then Celery's warm shutdown begins,
which finds nothing left to wait for. Nothing is popped meanwhile. Its `pool_shrink` may end a process that has just been given a job,
and refuses while all are busy: here fewer messages are popped at once, and processes go as they become idle.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from threading import Thread
from time import monotonic
from typing import Any

from celery.concurrency.prefork import TaskPool
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils.functional import maybe_list
from celery.worker import control, state
from celery.worker.consumer import Consumer as Stock
from celery.worker.control import control_command

from orchestrator.cancellation import node_of, stop_nodes
from orchestrator.control import DRAIN, DRAINED, EXTEND, KILL, SCALE
from tenancy.errors import HeadgateError
from tenancy.transport.channel import raised

logger = logging.getLogger(__name__)

SHRINK_EVERY_S = 0.1


class Consumer(Stock):
    """Celery's consumer with an end that loses nothing and waits for nothing but work."""

    loop: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stock_loop = self.loop
        self.loop = self._loop_to_the_end
        self._slots: int = self.pool.limit

    def scale_to(self, slots: int) -> None:
        """Offer `slots` slots from now on; processes beyond them end when they are idle. For the prefork pool."""
        change, self._slots = slots - self._slots, slots
        if slots > self.pool.num_processes:
            self.pool.grow(slots - self.pool.num_processes)
        self.initial_prefetch_count = slots * self.prefetch_multiplier
        self._update_qos_eventually(change)
        self._shrink_idle()

    def _shrink_idle(self) -> None:
        if self.pool.num_processes <= self._slots or self.pool._pool is None:
            return
        # A process that was given a job and has not said so yet looks idle to the pool.
        if all(job._accepted for job in tuple(self.pool._pool._cache.values())):
            with contextlib.suppress(ValueError):  # all are busy
                self.pool.shrink(self.pool.num_processes - self._slots)
        self.hub.call_later(SHRINK_EVERY_S, self._shrink_idle)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Hand a node back whose task this worker lacks, for a worker that has it; any other message is Celery's to refuse."""
        headers = message.headers
        node, delivery = headers.get("headgate"), headers.get("headgate_delivery")
        if node and delivery:
            try:
                failed = self.app.headgate_kernel.launcher.hand_back(node, delivery, str(headers.get("task", "")))
            except HeadgateError as error:
                logger.warning("a node whose task is not here could not be handed back: %s", error)
                message.reject_log_error(logger, self.connection_errors, requeue=True)
                return
            if not failed:
                message.ack_log_error(logger, self.connection_errors)  # what was handed back is not held any more
                return
        super().on_unknown_task(body, message, exc)

    def _loop_to_the_end(self, *args: Any) -> None:
        try:
            self._stock_loop(*args)
        except WorkerShutdown as told:
            # Remembered, so that a connection lost meanwhile does not make the worker begin anew.
            state.should_stop = told.code
            self._wind_down()
            raise

    def _wind_down(self) -> None:
        if self.hub is None or self.task_consumer is None:
            return  # a green pool: Celery's own way
        self.task_consumer.channel.stop_popping()
        if self.controller.semaphore is not None:
            self.controller.semaphore.clear()  # what was popped and not handed to the pool goes back in line
        loop = self.hub.create_loop()
        while self.connection and running():
            if state.should_terminate is not None and state.should_terminate is not False:
                raise WorkerTerminate(state.should_terminate)
            with contextlib.suppress(StopIteration):
                next(loop)
                continue
            loop = self.hub.create_loop()


def running() -> list[Any]:
    """Return the requests that this worker's pool has and that are not over."""
    return [request for request in tuple(state.reserved_requests) if request._apply_result is not None]


def _drain(_state: Any, **_: Any) -> None:
    """Take nothing new, finish what runs, and end."""
    logger.warning("drained: taking nothing new")
    raise WorkerShutdown(DRAINED)


def _scale(panel: Any, slots: int, **_: Any) -> dict[str, str]:
    """Offer so many slots from now on."""
    pool = panel.consumer.pool
    if not isinstance(pool, TaskPool) or panel.consumer.controller.autoscaler:
        kind = "an autoscaler" if isinstance(pool, TaskPool) else f"the pool {type(pool).__module__.rpartition('.')[2]!r}"
        return {"error": f"runs with {kind}, which cannot grow and shrink on request; start it anew with another --concurrency"}
    if slots < 1:
        return {"error": f"cannot have {slots} slots; `headgate workers drain` ends a worker"}
    panel.consumer.scale_to(slots)
    return {"ok": f"{slots} slots"}


def _kill(panel: Any, executions: list[list[str]], **_: Any) -> dict[str, int]:
    """End the processes that run these executions: task id, incarnation, tag, delivery."""
    if not isinstance(panel.consumer.pool, TaskPool):
        return {"ok": 0}
    wanted, killed = {tuple(execution) for execution in executions}, 0
    for request in tuple(state.active_requests):
        delivery = (request.request_dict or {}).get("headgate_delivery") or ()
        if (request.id, *map(str, delivery)) in wanted:
            request.terminate(panel.consumer.pool, signal="SIGTERM")
            killed += 1
    return {"ok": killed}


def _extend(panel: Any, run: str, node: str, timeout_s: int, **_: Any) -> dict[str, list[str]]:
    """Raise the soft time limit of what this worker has of a run ({run}.{generation}), or of one node of it with what it became.

    Answers with the task ids, also of what was popped and waits for a process. What its soft limit has ended already is left alone.
    """
    if not isinstance(panel.consumer.pool, TaskPool):
        return {"ok": []}
    pool, extended = panel.consumer.pool._pool, []
    for request in tuple(state.reserved_requests):
        named = (request.request_dict or {}).get("headgate") or (None, None, None)
        if f"{named[0]}.{named[1]}" == run and (not node or f"{named[2]}.".startswith(f"{node}.")) and _give_time(pool, request, timeout_s):
            extended.append(request.id)
    return {"ok": extended}


def _give_time(pool: Any, request: Any, timeout_s: int) -> bool:
    """Raise the soft limit of a request, and set the timers of its job anew as Celery sets them when a process takes it."""
    hard, soft = request.time_limits = tuple(raised(request.time_limits, timeout_s))
    job = request._apply_result and request._apply_result()
    if job is None:
        return True
    began, former = job._time_accepted, job._soft_timeout
    ran_s = monotonic() - began if began else 0.0
    if former is not None and ran_s >= former:
        return False
    job._soft_timeout, job._timeout = soft, hard
    if job._accepted and soft is not None and hard is not None:
        pool._discard_tref(job._job)
        pool.on_timeout_set(job, soft - ran_s, hard - ran_s)
    return True


def _cancel_nodes(panel: Any, ids: Iterable[str], why: str) -> None:
    """Celery's revoke of a node's task id cancels the node. Beside the event loop: a revoke may name thousands."""
    by_run: dict[tuple[str, int], list[str]] = {}
    for task_id in ids:
        if (node := node_of(task_id)) is not None:
            by_run.setdefault(node[:2], []).append(node[2])
    kernel = getattr(panel.app, "headgate_kernel", None)
    if kernel is None or not by_run:
        return

    def cancel() -> None:
        for (run_id, generation), nodes in by_run.items():
            try:
                stop_nodes(kernel, run_id, generation, nodes, why, "celery")
            except HeadgateError as error:
                logger.warning("the revoke of nodes of run %s was not understood as their cancellation: %s", run_id, error)

    Thread(target=cancel, name="headgate-revoke", daemon=True).start()


def _revoke(panel: Any, task_id: Any, terminate: bool = False, signal: Any = None, **options: Any) -> Any:
    """Revoke tasks by id, as Celery does; a node of a graph is cancelled with it, for every worker and every delivery."""
    ids = maybe_list(task_id) or []
    reply = control.revoke(panel, task_id, terminate=terminate, signal=signal, **options)
    _cancel_nodes(panel, ids, "its task id was revoked")
    return reply


def _terminate(panel: Any, signal: Any, task_id: Any, **options: Any) -> Any:
    """Terminate tasks by id, as Celery does; a node of a graph is cancelled with it."""
    return _revoke(panel, task_id, terminate=True, signal=signal, **options)


control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]", name="revoke")(_revoke)
control_command(variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]", name="terminate")(_terminate)
control_command(name=KILL)(_kill)
control_command(name=EXTEND)(_extend)
control_command(name=DRAIN)(_drain)
control_command(name=SCALE, args=[("slots", int)], signature="SLOTS")(_scale)
