"""The live workers: who they are, what they serve, and how much of it they are at."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tenancy import keys
from tenancy.link import Link


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A live incarnation of a worker.

    name: Celery's node name, such as `w1@host`. running: messages that it holds. since, beat: epoch seconds of its enrolment and of its
    last heartbeat.
    """

    id: str
    name: str
    host: str
    pid: int
    pools: tuple[str, ...]
    slots: int
    running: int
    since: float | None
    beat: float
    tasks: tuple[str, ...]


def workers(link: Link) -> list[WorkerView]:
    """Return the live workers by name. Raises Unavailable."""
    beats = link.read("ZRANGE", keys.INCARNATIONS, 0, -1, "WITHSCORES")
    found = []
    for inc, beat in beats:
        text, since = link.read("HMGET", keys.worker(inc), "info", "since")
        if text is None:
            continue  # it ended a moment ago
        info = json.loads(text)
        pools = tuple(info.get("pools") or ())
        slots = [link.read("HGET", keys.slots(pool), inc) for pool in pools]
        found.append(
            WorkerView(
                id=inc,
                name=str(info.get("name") or inc),
                host=str(info.get("host") or ""),
                pid=int(info.get("pid") or 0),
                pools=pools,
                slots=max((int(each) for each in slots if each is not None), default=int(info.get("slots") or 0)),
                running=int(link.read("HLEN", keys.unacked(inc))),
                since=None if since is None else int(since) / 1000,
                beat=float(beat) / 1000,
                tasks=tuple(sorted(info.get("tasks") or ())),
            )
        )
    return sorted(found, key=lambda worker: (worker.name, worker.id))
