"""Asking the recorder: a request goes into the log, the answer comes back once it is in SQL."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from ulid import ULID

from orchestrator import keys
from tenancy.errors import Unavailable
from tenancy.link import Link
from tenancy.log import append

PAYLOAD_KEPT_S = 3_600
"""How long a graph waits in Redis for the recorder."""

ANSWER_S = 15.0
"""How long whoever asks waits for the recorder."""

Kind = Literal[
    "request.submit",
    "request.tenant",
    "request.policy",
    "request.status",
    "request.prices",
    "request.rerun",
    "request.schedule",
    "request.report",
    "request.prune",
]

_AS_TEXT = {"request.tenant": "policy", "request.policy": "changes", "request.prices": "prices", "request.schedule": "said"}
"""Fields that travel as JSON text: Lua would round an amount of 16 digits."""


def append_request(link: Link, kind: Kind, fields: Mapping[str, Any], *, payload: str | bytes | None = None) -> str:
    """Append a request to the log and return its id; `await_answer` waits for what becomes of it.

    fields: what docs/record.md names for `kind`. `request`, the id, is made here unless it is given; a request that is
    appended again under its id (after a lost reply) is answered the same and done once. Amounts are sent as decimal
    strings, because Lua rounds numbers of more than 14 digits.
    payload: the graph of a submission or a schedule, canonical JSON; a report, JSON.
    Raises Unavailable and Fenced as every call of a Link.
    """
    request = str(fields.get("request") or str(ULID()).lower())
    if payload is not None:
        link.read("SET", keys.payload(request), payload, "EX", PAYLOAD_KEPT_S)
    event = {**fields, "t": kind, "request": request}
    if name := _AS_TEXT.get(kind):
        event[name] = json.dumps(dict(fields.get(name) or {}))
    elif event.get("budget") is not None:
        event["budget"] = str(event["budget"])
    append(link, event)
    return request


def await_answer(link: Link, request: str, timeout_s: float) -> dict[str, Any] | None:
    """Return the recorder's answer to `request`, or None if none came within `timeout_s` seconds.

    An answer can be taken once. What its `status` may be is in docs/record.md.
    Raises Unavailable when Redis goes away meanwhile.
    """
    until = time.monotonic() + timeout_s
    while (left := until - time.monotonic()) > 0:
        found: Any = link.read("BLPOP", keys.reply(request), str(min(left, 5.0)))
        if found is not None:
            answer: dict[str, Any] = json.loads(found[1])
            return answer
    return None


def answer_to(link: Link, request: str) -> dict[str, Any]:
    """Return the recorder's answer to `request`. Raises Unavailable when none came within 15 s."""
    answer = await_answer(link, request, ANSWER_S)
    if answer is None:
        raise Unavailable(f"the recorder did not answer within {ANSWER_S:g} s; is it running? (`headgate up` starts it)")
    return answer


def ask(link: Link, kind: Kind, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Append a request and return its answer: `append_request` and `answer_to` in one."""
    return answer_to(link, append_request(link, kind, fields))
