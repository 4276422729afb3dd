"""Beat's pulse: when each of its entries was last carried out, at which beat's word, and what came of it; so, which beats live."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from celery import Task

from orchestrator import keys
from tenancy.link import Link

SAID_MAX = 300
"""Characters of what came of it that are kept."""
BEATS_KEPT_S = 3_600
"""How long a beat is remembered after its last word."""
LATE_S = 10.0
"""So long after an entry was due, and half its interval more, it is late: beat or the worker that carries it out does not go on."""


class PutOff(str):
    """Why an entry was not carried out: its next time makes up for it."""

    __slots__ = ()


@dataclass(frozen=True)
class Beaten:
    """How an entry's task was last carried out: when it began (epoch seconds), how long it took, what it said; ok: it was not put off and
    did not fail. beat, worker: who asked and who did it, `gen{pid}@{host}` and a worker's name.
    """

    task: str
    at: float
    took_s: float
    ok: bool
    said: str
    beat: str
    worker: str


@dataclass(frozen=True)
class Pulse:
    """Entries by task, and the beats that had something carried out in the last hour, with when (epoch seconds); all by Redis's clock."""

    now: float
    entries: Mapping[str, Beaten]
    beats: Sequence[tuple[str, float]]


class Beat(Task):
    """The base of what beat calls: a call without arguments is noted, with what it returns or raises."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Carry it out."""
        if args or kwargs:  # asked for by somebody else, about a run
            return self.run(*args, **kwargs)
        began = time.monotonic()
        try:
            said = self.run()
        except Exception as error:
            self._note(began, PutOff(f"{type(error).__name__}: {error}"))
            raise
        self._note(began, said)
        return said

    def _note(self, began: float, said: str | None) -> None:
        took_s = time.monotonic() - began
        # Redis is away: that is told by what the entry said, and nobody could read this either.
        with suppress(redis.ConnectionError, redis.TimeoutError):
            who = str(self.request.origin or ""), str(self.request.hostname or "")
            note(self.app.headgate_kernel.link, str(self.name), took_s, said or "", *who, ok=not isinstance(said, PutOff))


def note(link: Link, task: str, took_s: float, said: str, beat: str, worker: str, *, ok: bool) -> None:
    """Note that a task of beat's was carried out just now. Raises redis.ConnectionError and redis.TimeoutError."""
    seconds, micros = link.client.time()
    now = seconds + micros / 1e6
    row = {"at": now - took_s, "took": took_s, "ok": ok, "said": said[:SAID_MAX], "beat": beat, "worker": worker}
    with link.client.pipeline(transaction=False) as pipe:
        pipe.hset(keys.PULSE, task, json.dumps(row))
        if beat:
            pipe.zadd(keys.BEATS, {beat: now})
            pipe.zremrangebyscore(keys.BEATS, "-inf", now - BEATS_KEPT_S)
        pipe.execute()


def pulse(link: Link) -> Pulse:
    """Return what is known of beat. Raises Unavailable."""
    rows, beats, (seconds, micros) = link.read_at_once(("HGETALL", keys.PULSE), ("ZRANGE", keys.BEATS, 0, -1, "WITHSCORES"), ("TIME",))
    entries = {task: _beaten(task, json.loads(row)) for task, row in rows.items()}
    return Pulse(int(seconds) + int(micros) / 1e6, entries, sorted(((name, float(at)) for name, at in beats), key=lambda each: -each[1]))


def _beaten(task: str, row: Mapping[str, Any]) -> Beaten:
    return Beaten(task, row["at"], row["took"], bool(row["ok"]), row["said"], row["beat"], row["worker"])


def is_late(now: float, at: float, took_s: float, every_s: float) -> bool:
    """Say whether an entry that was last carried out at `at` (epoch seconds), for `took_s`, should have been again by now."""
    return now - at - took_s > 1.5 * every_s + LATE_S
