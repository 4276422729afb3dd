"""What the recorder tells Redis after a commit: policies, prices, cursor, answers, ended runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import redis
from sqlalchemy import Engine

from cost import keys as money
from orchestrator import keys
from orchestrator.store.engine import reading
from orchestrator.store.live import over_on_record
from orchestrator.store.position import Position
from tenancy.link import Link

from .batch import Applied
from .prices import publish_prices
from .projection import parse_event
from .requests import ANSWER_KEPT_S, stored_answer
from .stream import read_until
from .tenants import policy_fields

REFRESHED_AT_ONCE = 200
SCANNED_AT_ONCE = 1_000
LOOKED_UP_AT_ONCE = 200


def now_ms(client: redis.Redis) -> int:
    """Return Redis's time in milliseconds."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def announce(client: redis.Redis, engine: Engine, applied: Applied, link: Link | None = None) -> None:
    """Say what is durable now; what changed of a tenant holds before the answer that says so.

    link: to what the changes mean for messages in line; None while no script passes, because the epoch is still to be opened.
    """
    if changed := applied.tenants:
        publish_policies(client, engine, changed)
        if link is not None:
            refresh(link, changed)
    if applied.prices:
        with reading(engine).connect() as connection:
            publish_prices(client, connection)
    at = now_ms(client)
    with client.pipeline(transaction=False) as pipe:
        pipe.set(keys.RECORDED, str(applied.cursor))
        pipe.set(keys.RECORDED_AT, at)
        for request, answer in applied.answers.items():
            pipe.lpush(keys.reply(request), json.dumps(answer))
            pipe.expire(keys.reply(request), ANSWER_KEPT_S)
            pipe.delete(keys.payload(request))
        for name in applied.ended:
            pipe.zadd(keys.OVER, {name: at}, nx=True)
            pipe.publish(keys.ENDED, name.rsplit(".", 1)[0])
        pipe.execute()


def ends_again(client: redis.Redis, engine: Engine) -> None:
    """Note which runs in Redis are over on record, where a crash after the commit kept that back: else nobody would forget them."""
    names = [key.removeprefix(keys.of_run("run", "")) for key in client.scan_iter(keys.of_run("run", "*"), count=SCANNED_AT_ONCE)]
    for first in range(0, len(names), LOOKED_UP_AT_ONCE):
        piece = names[first : first + LOOKED_UP_AT_ONCE]
        with client.pipeline(transaction=False) as pipe:
            for name in piece:
                pipe.hget(keys.of_run("run", name), "status")
            ended = [name for name, status in zip(piece, pipe.execute(), strict=True) if status == "ended"]
        with reading(engine).connect() as connection:
            over = over_on_record(connection, ended)
        if over:
            at = now_ms(client)
            client.zadd(keys.OVER, dict.fromkeys(over, at), nx=True)


def publish_policies(client: redis.Redis, engine: Engine, tenants: Collection[str] | None = None) -> list[str]:
    """Write the fields of `tenants` (None: of all) that their policies fix: absolute values, counters are not touched.

    Returns the tenants. Every hot path reads these fields, so a change holds from the next message and the next run on.
    """
    with reading(engine).connect() as connection:
        fields: dict[str, Any] = dict(policy_fields(connection, tenants))
    with client.pipeline(transaction=False) as pipe:
        for tenant, mapping in fields.items():
            pipe.hset(money.tenant(tenant), mapping=mapping)
        pipe.execute()
    return list(fields)


def refresh(link: Link, tenants: Sequence[str]) -> None:
    """Let what was written of tenants reach their levels and their messages in line: another limit, cap, weight or status."""
    for first in range(0, len(tenants), REFRESHED_AT_ONCE):
        piece = tenants[first : first + REFRESHED_AT_ONCE]
        link.batch([(script, [tenant]) for tenant in piece for script in ("cost/level", "tenancy/transport/refresh")])


def answer_again(client: redis.Redis, engine: Engine, cursor: Position) -> None:
    """Repeat the answers of the last minute that a crash between commit and reply may have kept back."""
    since = now_ms(client) - ANSWER_KEPT_S * 1000
    events = [parse_event(text) for _, text in read_until(client, cursor) if '"request.' in text]
    requests = {str(event["request"]) for event in events if event.get("request") and int(event.get("at") or 0) >= since}
    applied = Applied(cursor)
    with reading(engine).connect() as connection:
        for request in sorted(requests):
            answer = stored_answer(connection, request)
            if answer is not None and not client.exists(keys.reply(request)):
                applied.answers[request] = answer
    announce(client, engine, applied)
