"""What workers are told by Celery's remote control: to drain, to have so many slots, to end executions, or to give them more time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tenancy import keys as names
from tenancy.errors import HeadgateError, Unavailable
from tenancy.transport.fleet import workers

if TYPE_CHECKING:
    from celery import Celery

    from tenancy.link import Link

DRAIN, SCALE, KILL, EXTEND = "headgate_drain", "headgate_scale", "headgate_kill", "headgate_extend"
"""Names of our remote control commands."""

DRAINED = 86
"""Exit code of a worker that was drained: whoever watches it does not start it again."""

ANSWER_S = 3.0
"""How long a worker may take to answer; one that is busy in its main process answers later."""


def drain(app: Celery, name: str) -> None:
    """Tell the worker `name` to take nothing new, finish what it runs and end. It does not answer: its incarnation ends."""
    app.control.broadcast(DRAIN, destination=[name])


def scale(app: Celery, wanted: Mapping[str, int]) -> None:
    """Have each worker offer so many slots. Busy processes finish their work before they go.

    Raises HeadgateError when a worker's pool cannot grow and shrink (nothing has changed there), Unavailable when one does not answer.
    """
    for name, slots in wanted.items():
        replies = app.control.broadcast(SCALE, arguments={"slots": slots}, destination=[name], reply=True, timeout=ANSWER_S, limit=1)
        answer = next((reply[name] for reply in replies or () if name in reply), None)
        if answer is None:
            raise Unavailable(f"the worker {name} did not answer within {ANSWER_S:g} s; `headgate workers list` says who is alive")
        if "error" in answer:
            raise HeadgateError(f"{name} {answer['error']}")


def kill(app: Celery, name: str, executions: Sequence[Sequence[str]]) -> int:
    """Have the worker `name` end the processes that run these executions (task id, incarnation, tag, delivery); return how many it has.

    A worker that does not answer has none, as far as anybody knows. Executions that have ended meanwhile are left alone.
    """
    told = app.control.broadcast(KILL, arguments={"executions": executions}, destination=[name], reply=True, timeout=ANSWER_S, limit=1)
    return sum(int(reply[name].get("ok", 0)) for reply in told or () if name in reply)


def kill_leased(app: Celery, link: Link, leases: Mapping[str, str]) -> int:
    """Have the processes of these executions (task id -> lease of its node) ended by the workers that hold them; return how many have one.

    Raises Unavailable.
    """
    by_worker: dict[str, list[list[str]]] = {}
    for task_id, lease in leases.items():
        _, inc, tag, delivery, _ = lease.split("|")
        info = link.read("HGET", names.worker(inc), "info")
        if info is not None:
            by_worker.setdefault(str(json.loads(info)["name"]), []).append([task_id, inc, tag, delivery])
    return sum(kill(app, worker, executions) for worker, executions in by_worker.items())


def extend(app: Celery, link: Link, run: str, node: str, timeout_s: int) -> set[str]:
    """Raise the time limit of what workers have of `run` ({run}.{generation}), or of one node of it and what it became.

    Returns the task ids whose limit it is now. Only processes of the prefork pool have limits. A worker that does not answer has raised
    none, as far as is known. Raises Unavailable.
    """
    holders = [worker.name for worker in workers(link) if worker.running]
    if not holders:
        return set()
    arguments = {"run": run, "node": node, "timeout_s": timeout_s}
    told = app.control.broadcast(EXTEND, arguments=arguments, destination=holders, reply=True, timeout=ANSWER_S, limit=len(holders))
    return {task_id for reply in told or () for answer in reply.values() for task_id in answer.get("ok", ())}


def spread(slots: int, workers: Iterable[str]) -> dict[str, int]:
    """Return how many of `slots` each worker has: as equal as can be, the first ones one more.

    Raises HeadgateError where a worker would have none.
    """
    names = sorted(workers)
    if slots < len(names):
        raise HeadgateError(
            f"{slots} slots are too few for {len(names)} workers, which have at least one each; `headgate workers drain WORKER` ends one"
        )
    return {name: slots // len(names) + (at < slots % len(names)) for at, name in enumerate(names)}
