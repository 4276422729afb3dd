"""What the recorder tells Redis after a commit: policies, cursor, answers, ended runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import redis
from sqlalchemy import Engine

from cost import keys as money
from orchestrator import keys
from orchestrator.store.engine import reading
from orchestrator.store.position import Position

from .batch import Applied
from .projection import parse_event
from .requests import ANSWER_KEPT_S, policy_fields, stored_answer
from .stream import read_until


def now_ms(client: redis.Redis) -> int:
    """Return Redis's time in milliseconds."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def announce(client: redis.Redis, engine: Engine, applied: Applied) -> None:
    """Say what is durable now; a new tenant's policy is there before the answer that names the tenant."""
    created = [str(answer["tenant"]) for answer in applied.answers.values() if "tenant" in answer and answer["status"] == "accepted"]
    if created:
        publish_policies(client, engine, created)
    at = now_ms(client)
    with client.pipeline(transaction=False) as pipe:
        pipe.set(keys.RECORDED, str(applied.cursor))
        pipe.set(keys.RECORDED_AT, at)
        for request, answer in applied.answers.items():
            pipe.lpush(keys.reply(request), json.dumps(answer))
            pipe.expire(keys.reply(request), ANSWER_KEPT_S)
            pipe.delete(keys.payload(request))
        for run in applied.ended:
            pipe.publish(keys.ENDED, run)
        pipe.execute()


def publish_policies(client: redis.Redis, engine: Engine, tenants: Iterable[str] | None = None) -> None:
    """Write the fields of `tenants` (None: of all) that their policies fix: absolute values, counters are not touched."""
    with reading(engine).connect() as connection:
        fields: dict[str, Any] = dict(policy_fields(connection))
    with client.pipeline(transaction=False) as pipe:
        for tenant in fields if tenants is None else tenants:
            pipe.hset(money.tenant(tenant), mapping=fields[tenant])
        pipe.execute()


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
