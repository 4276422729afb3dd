"""Dead letters: messages that are not tried again by themselves, with the history of the deaths they were at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tenancy import keys
from tenancy.link import Link
from tenancy.priorities import Priority

PIECE = 200
"""Tags in one call of a script."""


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that died while it held the message; `at` is epoch seconds."""

    worker: str
    at: float


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. `at` is when it was given up (epoch seconds), `age_s` how long ago; `run` is `{run}.{generation}`, '' for an
    ordinary message. A node counts the executions that it lost by itself, so it may have been at more deaths than those.
    """

    tag: str
    tenant: str
    task: str
    pool: str
    priority: str
    run: str
    reason: str
    at: float
    age_s: float
    deliveries: int
    deaths: tuple[Death, ...]


def letters(link: Link) -> list[Letter]:
    """Return all dead letters, newest first. Raises Unavailable."""
    rows = dict(link.read("HGETALL", keys.LETTERS))
    if not rows:
        return []
    tags = sorted(rows)
    metas = [meta for piece in _pieces(tags) for meta in link.read("HMGET", keys.META, *piece)]
    now_s = int(link.read("TIME")[0])
    found = [_letter(tag, json.loads(rows[tag]), json.loads(meta), now_s) for tag, meta in zip(tags, metas, strict=True) if meta]
    return sorted(found, key=lambda letter: (-letter.at, letter.tag))


def act(link: Link, what: str, tags: Iterable[str]) -> int:
    """`requeue` or `discard` the dead letters of these tags; return how many there were. Raises Unavailable or Fenced."""
    return sum(int(link.call("tenancy/transport/letters", what, *piece)) for piece in _pieces(list(tags)))


def _letter(tag: str, row: dict[str, Any], meta: dict[str, Any], now_s: int) -> Letter:
    deaths = tuple(Death(str(death["inc"]), int(death["at"]) / 1000) for death in row.get("deaths") or ())
    at = int(row["at"]) / 1000
    return Letter(
        tag=tag,
        tenant=str(meta["t"]),
        task=str(meta.get("f") or ""),
        pool=str(meta["q"]),
        priority=Priority(int(meta["p"])).name.lower(),
        run=str(meta.get("r") or ""),
        reason=str(row["reason"]),
        at=at,
        age_s=max(0.0, now_s - at),
        deliveries=int(meta["n"]),
        deaths=deaths,
    )


def _pieces(tags: Sequence[str]) -> list[Sequence[str]]:
    return [tags[first : first + PIECE] for first in range(0, len(tags), PIECE)]
