"""The record as it was when revisions began."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ORDERED = sa.Text(collation="C")  # PostgreSQL's text, in the order that Python and SQLite have it
WORDS = sa.String().with_variant(_ORDERED, "postgresql")
TEXT = sa.Text().with_variant(_ORDERED, "postgresql")
INT, BIG, BYTES = sa.Integer(), sa.BigInteger(), sa.LargeBinary()


def _maybe(kind: Any) -> Any:
    return kind, True


def _table(table: str, key: tuple[str, ...], /, **columns: Any) -> None:
    made = []
    for name, kind in columns.items():
        of, nullable = kind if isinstance(kind, tuple) else (kind, False)
        # Only a counted id is SQL's to choose; ours are said.
        made.append(sa.Column(name, of, nullable=nullable, primary_key=name in key, autoincrement="auto" if of is INT else False))
    op.create_table(table, *made)


def _index(name: str, table: str, *columns: str, unique: bool = False, where: str | None = None) -> None:
    part = None if where is None else sa.text(where)
    op.create_index(name, table, list(columns), unique=unique, sqlite_where=part, postgresql_where=part)


def upgrade() -> None:
    """Make every table."""
    _table("tenant", ("id",), id=WORDS, name=WORDS, status=WORDS, currency=WORDS, created_at=BIG)
    _table("policy", ("tenant", "version"), tenant=WORDS, version=INT, fields=TEXT, at=BIG)
    _table(
        "run",
        ("run_id", "generation"),
        run_id=WORDS,
        generation=INT,
        tenant=WORDS,
        key=_maybe(WORDS),
        graph_name=WORDS,
        digest=WORDS,
        spec=_maybe(BYTES),
        status=WORDS,
        outcome=_maybe(WORDS),
        submitted_at=BIG,
        started_at=_maybe(BIG),
        finished_at=_maybe(BIG),
        total=_maybe(INT),
        budget=_maybe(BIG),
        hold=_maybe(BIG),
        estimate=_maybe(BIG),
        floor=_maybe(BIG),
        cost_micros=BIG,
        counts=_maybe(TEXT),
        reason=_maybe(TEXT),
        priority=INT,
        labels=TEXT,
        learned=_maybe(TEXT),
        strict=INT,
        full=INT,
        adopts=_maybe(TEXT),
        becomes=_maybe(TEXT),
        ranked=_maybe(INT),
        timeout_s=_maybe(INT),
        trace=_maybe(TEXT),
    )
    _index("run_again", "run", "run_id", "generation", where="generation > 1")
    _index("run_finished", "run", "finished_at", "tenant")
    _index("run_graph", "run", "graph_name", "submitted_at", "run_id", "generation", "status", "outcome", "tenant")
    _index("run_key", "run", "tenant", "key", "generation", unique=True)
    _index("run_recent", "run", "submitted_at", "run_id", "generation", "status", "outcome", "tenant", "graph_name", "key", "cost_micros")
    _index("run_status", "run", "status", "submitted_at")
    _table(
        "node",
        ("run_id", "generation", "node_id"),
        run_id=WORDS,
        generation=INT,
        node_id=WORDS,
        state=_maybe(WORDS),
        outcome=_maybe(WORDS),
        reason=_maybe(TEXT),
        attempt=_maybe(INT),
        fails=INT,
        lost=INT,
        worker=_maybe(WORDS),
        verdict=_maybe(WORDS),
        queued_at=_maybe(BIG),
        started_at=_maybe(BIG),
        finished_at=_maybe(BIG),
        cost_micros=BIG,
        cost_llm=BIG,
        cost_retrieval=BIG,
        cost_storage=BIG,
        cost_compute=BIG,
        cost_other=BIG,
        result=_maybe(TEXT),
        error=_maybe(TEXT),
        adopted=_maybe(INT),
        stop=_maybe(TEXT),
        decision=_maybe(WORDS),
        timeout_s=_maybe(INT),
    )
    _table(
        "decision",
        ("id",),
        id=WORDS,
        tenant=WORDS,
        run_id=WORDS,
        generation=INT,
        number=INT,
        at=BIG,
        trigger=WORDS,
        action=WORDS,
        reason=TEXT,
        flags=TEXT,
        inputs_hash=WORDS,
        inputs=TEXT,
        plan=TEXT,
        projected=_maybe(BIG),
        confidence_permille=_maybe(INT),
        concurrency_percent=_maybe(INT),
        policy_version=_maybe(INT),
        observed=INT,
        cause=TEXT,
        applied_at=_maybe(BIG),
        applied=_maybe(TEXT),
    )
    _index("decision_run", "decision", "run_id", "generation")
    _index("decision_tenant", "decision", "tenant", "at")
    _table(
        "event",
        ("epoch", "seq"),
        epoch=BIG,
        seq=BIG,
        at=BIG,
        type=WORDS,
        tenant=_maybe(WORDS),
        run_id=_maybe(WORDS),
        generation=_maybe(INT),
        node_id=_maybe(WORDS),
        data=TEXT,
        link=_maybe(WORDS),
    )
    _index("event_level", "event", "tenant", "epoch", "seq", where="type IN ('level.entered', 'level.left')")
    _index("event_run", "event", "run_id", "generation", "epoch", "seq")
    _index("event_worker", "event", "epoch", "seq", where="type IN ('worker.enrolled', 'worker.retired', 'worker.dead', 'epoch.opened')")
    _table(
        "chain",
        ("run_id", "generation"),
        run_id=WORDS,
        generation=INT,
        events=BIG,
        epoch=BIG,
        seq=BIG,
        link=WORDS,
        seal=WORDS,
        key_id=WORDS,
    )
    _table(
        "ledger",
        ("id",),
        id=WORDS,
        tenant=WORDS,
        run_id=WORDS,
        generation=INT,
        node_id=WORDS,
        attempt=INT,
        kind=WORDS,
        category=WORDS,
        amount=BIG,
        day=INT,
        by=WORDS,
        at=BIG,
        price_version=_maybe(TEXT),
        period=WORDS,
        cause=TEXT,
        released=BIG,
        to_hold=BIG,
    )
    _index("ledger_run", "ledger", "run_id", "generation")
    _index("ledger_spend", "ledger", "tenant", "day", "kind", "at", "category", "amount")
    _table(
        "usage",
        ("run_id", "generation", "node_id", "attempt"),
        run_id=WORDS,
        generation=INT,
        node_id=WORDS,
        attempt=INT,
        price_version=TEXT,
        lines=TEXT,
    )
    _table("price_table", ("version",), version=WORDS, prices=TEXT, at=BIG, by=TEXT, reason=TEXT)
    _table("price_choice", ("tenant",), tenant=WORDS, version=WORDS, at=BIG)
    _table(
        "learned",
        ("tenant", "task", "variant"),
        tenant=WORDS,
        task=WORDS,
        variant=WORDS,
        count=INT,
        sum_llm=BIG,
        sum_retrieval=BIG,
        sum_storage=BIG,
        sum_compute=BIG,
        sum_other=BIG,
    )
    _table(
        "notice",
        ("id",),
        id=WORDS,
        key=WORDS,
        channel=WORDS,
        tenant=WORDS,
        body=TEXT,
        at=BIG,
        state=WORDS,
        tries=INT,
        due_at=BIG,
        error=TEXT,
    )
    _index("notice_due", "notice", "state", "tries", "due_at")
    _table("report", ("id",), id=WORDS, scope=WORDS, kind=WORDS, period=WORDS, made_at=BIG, epoch=BIG, seq=BIG, body=BYTES)
    _index("report_made", "report", "made_at")
    _index("report_scope", "report", "scope", "kind", "period")
    _table("request", ("id",), id=WORDS, at=BIG, answer=TEXT)
    _table("pause", ("scope",), scope=WORDS, by=TEXT, reason=TEXT, at=BIG)
    _table("fence", ("scope",), scope=WORDS, by=TEXT, reason=TEXT, at=BIG)
    _table(
        "schedule",
        ("tenant", "name"),
        tenant=WORDS,
        name=WORDS,
        graph_name=WORDS,
        digest=WORDS,
        spec=BYTES,
        cron=_maybe(WORDS),
        every_s=_maybe(INT),
        timezone=WORDS,
        catch_up=WORDS,
        overlap=WORDS,
        jitter_s=INT,
        budget=_maybe(BIG),
        priority=_maybe(INT),
        paused=INT,
        version=INT,
        created_at=BIG,
        decided_to=BIG,
        next_at=_maybe(BIG),
    )
    _index("schedule_next", "schedule", "paused", "next_at")
    _table(
        "tick",
        ("tenant", "schedule", "at"),
        tenant=WORDS,
        schedule=WORDS,
        at=BIG,
        state=WORDS,
        reason=TEXT,
        run_id=_maybe(WORDS),
        decided_at=BIG,
        retry_at=BIG,
    )
    _index("tick_state", "tick", "state", "retry_at")
    _table("incident", ("id",), id=WORDS, at=BIG, kind=WORDS, detail=TEXT)
    _table("cursor", ("id",), id=INT, epoch=BIG, seq=BIG)
    _table("audit", ("id",), id=WORDS, at=BIG, actor=WORDS, action=WORDS, tenant=_maybe(WORDS), target=_maybe(WORDS), data=TEXT)
    _index("audit_tenant", "audit", "tenant", "at")
