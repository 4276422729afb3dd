"""A report is kept by the recorder: the first one, if it is one, with who is to be told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select

from orchestrator.recorder.batch import apply
from orchestrator.recorder.projection import Entry
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.position import Position
from orchestrator.store.report_rows import report_body, reports_since
from tenancy.policy import Policy

pytestmark = pytest.mark.both_records


KEY = b"a key of the tests"
ASKED = {"t": "request.report", "at": 5, "scope": "tenant:acme", "kind": "day", "period": "2026-11-22", "position": "1-7"}
BODY = {"tenant_id": "acme", "period": "2026-11-22", "position": "1-7", "used": 1, "stated": {}, "worker_ms": {}}


@pytest.fixture
def engine(database_url: str) -> Engine:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    policies = {"acme": Policy(webhook="https://example.org/", webhook_reports=True), "quiet": Policy(webhook="https://example.org/")}
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=1, seq=0))
        for name, policy in policies.items():
            connection.execute(insert(t.policy), {"tenant": name, "version": 1, "fields": policy.model_dump_json(), "at": 0})
    return engine


def answers(engine: Engine, *events: dict[str, Any], payload: bytes | None = json.dumps(BODY).encode(), first: int = 1) -> list[str]:
    entries = [Entry(Position(1, at), json.dumps(event | {"request": f"q{at}"})) for at, event in enumerate(events, first)]
    payloads = {} if payload is None else {f"q{at}": payload for at in range(first, first + len(events))}
    applied = apply(engine, entries, payloads, KEY)
    return [applied.answers[f"q{at}"]["status"] for at in range(first, first + len(events))]


def channels(engine: Engine, key: str) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.execute(select(t.notice.c.channel).where(t.notice.c.key == key)).scalars())


def test_the_first_is_kept_and_another_finds_it(engine: Engine) -> None:
    assert answers(engine, ASKED, ASKED) == ["accepted", "exists"]
    assert answers(engine, ASKED, payload=b'{"other": 1}', first=3) == ["exists"]
    assert report_body(engine, "tenant:acme|2026-11-22") == BODY
    (told,) = reports_since(engine, 0)
    assert (told.scope, told.period, told.position, told.made_at) == ("tenant:acme", "2026-11-22", (1, 7), 5)
    assert reports_since(engine, 6) == []


def test_who_is_told_is_what_the_policy_says(engine: Engine) -> None:
    answers(engine, ASKED, ASKED | {"scope": "tenant:quiet"}, ASKED | {"scope": "platform"}, ASKED | {"scope": "tenant:nobody"})
    assert channels(engine, "report.tenant:acme|2026-11-22") == ["hook", "webhook"]
    assert channels(engine, "report.platform|2026-11-22") == ["hook", "webhook"]
    assert channels(engine, "report.tenant:quiet|2026-11-22") == channels(engine, "report.tenant:nobody|2026-11-22") == []
    with engine.connect() as connection:
        sent = json.loads(str(connection.execute(select(t.notice.c.body).where(t.notice.c.channel == "webhook")).scalar()))
    assert (sent["event"], sent["tenant"], sent["position"]) == ("report.made", "acme", "1-7")
    assert sent["report"] == {"tenant_id": "acme", "period": "2026-11-22", "position": "1-7", "used": 1}


def test_a_report_that_is_kept_lets_go_of_the_oldest_and_never_of_what_the_next_ones_are_made_of(engine: Engine) -> None:
    day = 86_400_000
    for number in range(3):
        answers(engine, ASKED | {"at": number * day, "period": f"2026-11-0{number + 1}"}, first=number + 1)

    def kept() -> list[str]:
        with engine.connect() as connection:
            told = set(connection.execute(select(t.notice.c.key).where(t.notice.c.channel == "webhook")).scalars())
        found = [each.id for each in reports_since(engine, 0)]
        assert told == {f"report.{name}" for name in found}, "what was sent of them goes with them"
        return [name.rpartition("|")[2] for name in found]

    # Whoever asks for less is given a hundred days.
    assert answers(engine, ASKED | {"at": 101 * day, "period": "2027-02-01", "forget": 101 * day}, first=4) == ["accepted"]
    assert kept() == ["2026-11-02", "2026-11-03", "2027-02-01"]
    assert answers(engine, ASKED | {"at": 200 * day, "scope": "platform", "period": "2027-05", "forget": 2 * day}, first=5) == ["accepted"]
    assert kept() == ["2026-11-03", "2027-02-01", "2027-05"]
    again = ASKED | {"at": 500 * day, "scope": "platform", "period": "2027-05", "forget": 400 * day}
    assert answers(engine, again, first=6) == ["exists"]
    assert len(kept()) == 3, "what is asked for twice does nothing the second time"
    assert answers(engine, ASKED | {"at": 500 * day, "period": "2028-01-01", "forget": "soon"}, first=7) == ["invalid"]
    assert len(kept()) == 3


def test_what_is_gone_or_no_report_leaves_nothing_behind(engine: Engine) -> None:
    assert answers(engine, ASKED, payload=None) == ["lost"]
    odd = [ASKED | {"kind": "year"}, ASKED | {"position": "x"}, ASKED | {"period": ""}]
    assert answers(engine, *odd, first=2) == ["invalid"] * 3
    assert answers(engine, ASKED, payload=b"not JSON", first=5) == ["invalid"]
    assert answers(engine, ASKED, payload=b"{}", first=6) == ["invalid"]
    assert reports_since(engine, 0) == []
    assert answers(engine, ASKED, first=7) == ["accepted"], "it may be made again"
