"""The event stream as the recorder sees it: read behind a cursor, trim far behind it."""

from __future__ import annotations

from typing import Any

import redis

from orchestrator.store.position import Position
from tenancy import keys

from .projection import Entry, parse_event

BATCH_MAX = 1_000
TRIM_STEPS = (1_000, 100)
TRIM_ROUNDS_MAX = 20


def read_after(client: redis.Redis, cursor: Position, block_ms: int | None) -> list[Entry]:
    """Return at most 1000 entries after `cursor`, waiting up to `block_ms` for the first; None does not wait."""
    found: Any = client.xread({keys.EVENTS: str(cursor)}, count=BATCH_MAX, block=block_ms)
    if not found:
        return []
    # RESP2 answers a list of pairs, RESP3 a mapping.
    rows = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
    return _entries(rows)


def read_until(client: redis.Redis, cursor: Position) -> list[Entry]:
    """Return the last entries up to and with `cursor`, at most 1000, in order."""
    return _entries(client.xrevrange(keys.EVENTS, max=str(cursor), count=BATCH_MAX))[::-1]


def last(client: redis.Redis) -> Position | None:
    """Return the position of the newest entry; None if the stream holds none."""
    newest = _entries(client.xrevrange(keys.EVENTS, count=1))
    return newest[0].position if newest else None


def _entries(rows: Any) -> list[Entry]:
    return [Entry(Position.parse(identity), fields["e"]) for identity, fields in rows]


def trim(client: redis.Redis, cursor: Position, before_ms: int) -> int:
    """Drop entries that are recorded and older than `before_ms`; return how many.

    Looks at every thousandth entry, then at every hundredth, and at most at twenty of each a call, so up to 100 entries more than
    needed stay.
    """
    return sum(_trim_by(client, step, cursor, before_ms) for step in TRIM_STEPS)


def _trim_by(client: redis.Redis, step: int, cursor: Position, before_ms: int) -> int:
    dropped = 0
    for _ in range(TRIM_ROUNDS_MAX):
        oldest = _entries(client.xrange(keys.EVENTS, count=1))
        if not oldest:
            break
        start = oldest[0].position
        probe = _entries(client.xrange(keys.EVENTS, min=str(Position(start.epoch, start.seq + step)), count=1))
        if not probe or probe[0].position > cursor or int(parse_event(probe[0].text).get("at") or 0) >= before_ms:
            break
        removed: Any = client.xtrim(keys.EVENTS, minid=str(probe[0].position), approximate=False)
        dropped += int(removed)
    return dropped
