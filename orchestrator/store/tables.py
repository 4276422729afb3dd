"""The tables of the record, portable between SQLite and PostgreSQL.

Times are whole milliseconds since 1970-01-01 UTC, amounts whole micros; both are BigInteger, because Numeric loses
digits on SQLite. JSON is text, written once and compared byte for byte.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Dialect, Index, LargeBinary, String, Table, Text, TypeDecorator, text
from sqlmodel import AutoString, Field, SQLModel

LIVE = ("submitted", "held", "running", "cancelling")
"""The statuses of a run that is not over."""


OF_WORKERS = "type IN ('worker.enrolled', 'worker.retired', 'worker.dead', 'epoch.opened')"
"""What tells the lives of workers: few among many events, so they have an index, which is used where a query says it in these words."""

OF_LEVELS = "type IN ('level.entered', 'level.left')"
"""What tells the levels of tenants; likewise."""

HAS_LOG = "logged > 0"
"""What tells the generations whose log is there; after years most have none any more."""

OF_TASKS = "generation = 0 AND run_id <> ''"
"""What tells the chains of ordinary tasks."""

LATER = "generation > 1"
"""What tells the generations that a run was given later: few, so they have an index, which is used where a query says it in these words."""


def _big(*, optional: bool = False) -> Any:
    return Field(default=None if optional else 0, sa_column=Column(BigInteger, nullable=optional))


def _text(*, optional: bool = False) -> Any:
    return Field(default=None if optional else "", sa_column=Column(Text, nullable=optional))


class TenantRow(SQLModel, table=True):
    """A tenant; `status` is active, suspended or closed."""

    __tablename__ = "tenant"

    id: str = Field(primary_key=True)
    name: str = ""
    status: str = "active"
    currency: str = "EUR"
    created_at: int = _big()


class PolicyRow(SQLModel, table=True):
    """One version of a tenant's policy; `fields` is the JSON of a `Policy`. The highest version holds."""

    __tablename__ = "policy"

    tenant: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    fields: str = _text()
    at: int = _big()


class RunRow(SQLModel, table=True):
    """One generation of a run.

    `status` is submitted, held (`reason` says why), running, cancelling, ended or refused; `spec` the graph's canonical JSON,
    deflated; `hold` is None until the run is admitted; `learned` is JSON of what its tasks were expected to cost that no node declares,
    as it was known at its submission; `strict` 1: counted at
    `max_cost`; `full` 1: admitted with its whole estimate or not at all. `cost_micros` is the sum of what its executions were charged,
    waste included. `adopts` is JSON of what a later generation takes over instead of running it: node to the generation that ran it;
    `becomes` JSON of the graphs that its nodes turn into without running: node to the graph, as a result is kept.
    `ranked` is the priority that it was given while it was in flight; `priority` stays that of its submission. `timeout_s` is what the
    time limit of all its nodes was raised to meanwhile. `trace` is the traceparent that it was submitted with; that of the first
    generation holds for all. `logged` is 2, 1 while its events are let go of, 0 when they are gone.
    """

    __tablename__ = "run"
    __table_args__ = (
        Index("run_key", "tenant", "key", "generation", unique=True),
        Index("run_status", "status", "submitted_at"),
        # Whatever lists of runs are sorted, filtered and counted by, so that they read no row that they do not show: rows have the spec.
        Index("run_recent", "submitted_at", "run_id", "generation", "status", "outcome", "tenant", "graph_name", "key", "cost_micros"),
        Index("run_graph", "graph_name", "submitted_at", "run_id", "generation", "status", "outcome", "tenant"),
        Index("run_finished", "finished_at", "tenant"),
        Index("run_log", "finished_at", sqlite_where=text(HAS_LOG), postgresql_where=text(HAS_LOG)),
        Index("run_again", "run_id", "generation", sqlite_where=text(LATER), postgresql_where=text(LATER)),
    )

    run_id: str = Field(primary_key=True)
    generation: int = Field(primary_key=True)
    tenant: str
    key: str | None = None
    graph_name: str = ""
    digest: str = ""
    spec: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    status: str = "submitted"
    outcome: str | None = None
    submitted_at: int = _big()
    started_at: int | None = _big(optional=True)
    finished_at: int | None = _big(optional=True)
    total: int | None = None
    budget: int | None = _big(optional=True)
    hold: int | None = _big(optional=True)
    estimate: int | None = _big(optional=True)
    floor: int | None = _big(optional=True)
    cost_micros: int = _big()
    counts: str | None = _text(optional=True)
    reason: str | None = _text(optional=True)
    priority: int = 5
    labels: str = _text()
    learned: str | None = _text(optional=True)
    strict: int = 0
    full: int = 0
    adopts: str | None = _text(optional=True)
    becomes: str | None = _text(optional=True)
    ranked: int | None = None
    timeout_s: int | None = None
    trace: str | None = _text(optional=True)
    logged: int = 2


class NodeRow(SQLModel, table=True):
    """One node of one generation, from the moment that it was due.

    `state` is due, running or ended; a node without a row or state is pending. `queued_at` is when it was first due,
    `started_at` when its last attempt began. Empty texts in `reason` and `error` mean none. `adopted` is the earlier generation that ran
    it, whose result it has. `stop` is why a person cancelled it: a running one has no outcome yet. `decision` is the last of the cost
    agent's that touched it. `timeout_s` is what its own time limit was raised to.
    """

    __tablename__ = "node"

    run_id: str = Field(primary_key=True)
    generation: int = Field(primary_key=True)
    node_id: str = Field(primary_key=True)
    state: str | None = None
    outcome: str | None = None
    reason: str | None = _text(optional=True)
    attempt: int | None = None
    fails: int = 0
    lost: int = 0
    worker: str | None = None
    verdict: str | None = None
    queued_at: int | None = _big(optional=True)
    started_at: int | None = _big(optional=True)
    finished_at: int | None = _big(optional=True)
    cost_micros: int = _big()
    cost_llm: int = _big()
    cost_retrieval: int = _big()
    cost_storage: int = _big()
    cost_compute: int = _big()
    cost_other: int = _big()
    result: str | None = _text(optional=True)
    error: str | None = _text(optional=True)
    adopted: int | None = None
    stop: str | None = _text(optional=True)
    decision: str | None = None
    timeout_s: int | None = None


class DecisionRow(SQLModel, table=True):
    """A decision of the cost agent about a run: what it looked at, what it said, and what of it was applied.

    `id` is `{run}.{generation}.{number}`; `flags`, `plan` and `applied` are JSON, `inputs` is the JSON of everything that was looked at, or
    `@` and the path of an object that has it, `inputs_hash` its SHA-256. `projected` is in micros. `cause` is the execution or the node
    that tripped it, `observed` 1: nothing was to be applied. `applied_at` is None until all of it was applied. A decision at admission
    of an older version has no inputs.
    """

    __tablename__ = "decision"
    __table_args__ = (
        Index("decision_run", "run_id", "generation"),
        Index("decision_tenant", "tenant", "at"),
        Index("decision_at", "at", "run_id", "number"),
    )

    id: str = Field(primary_key=True)
    tenant: str
    run_id: str
    generation: int
    number: int
    at: int = _big()
    trigger: str = ""
    action: str = ""
    reason: str = _text()
    flags: str = _text()
    inputs_hash: str = ""
    inputs: str = _text()
    plan: str = _text()
    projected: int | None = _big(optional=True)
    confidence_permille: int | None = None
    concurrency_percent: int | None = None
    policy_version: int | None = None
    observed: int = 0
    cause: str = _text()
    applied_at: int | None = _big(optional=True)
    applied: str | None = _text(optional=True)


class EventRow(SQLModel, table=True):
    """One event of the log, never changed; `data` is its JSON exactly as the script wrote it.

    `link` is its link in the chain of its run and generation.
    """

    __tablename__ = "event"
    __table_args__ = (
        Index("event_run", "run_id", "generation", "epoch", "seq"),
        Index("event_worker", "epoch", "seq", sqlite_where=text(OF_WORKERS), postgresql_where=text(OF_WORKERS)),
        Index("event_level", "tenant", "epoch", "seq", sqlite_where=text(OF_LEVELS), postgresql_where=text(OF_LEVELS)),
    )

    epoch: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    at: int = _big()
    type: str
    tenant: str | None = None
    run_id: str | None = None
    generation: int | None = None
    node_id: str | None = None
    data: str = _text()
    link: str | None = None


class ChainRow(SQLModel, table=True):
    """The end of the chain of a run's generation: how many events, and position and link of the last; `seal` binds them.

    Events that belong to no generation have a chain of their own, run '' and generation 0. `key_id` tells which key made the last link.
    """

    __tablename__ = "chain"
    __table_args__ = (Index("chain_task", "epoch", "seq", sqlite_where=text(OF_TASKS), postgresql_where=text(OF_TASKS)),)

    run_id: str = Field(primary_key=True)
    generation: int = Field(primary_key=True)
    events: int = _big()
    epoch: int = _big()
    seq: int = _big()
    link: str
    seal: str
    key_id: str


class LedgerRow(SQLModel, table=True):
    """One entry of the ledger, never changed: counters are sums over entries.

    `kind` is hold, reserve, extend, settle, waste, void, expire, adjust or release. `amount` is set aside (hold, reserve, extend), charged
    (settle, waste; adjust, which alone may be negative) or given back (void, expire, release). `released` is what the entry takes off
    open reservations, `to_hold` what it adds to its run's hold, less than 0 where it takes. settle and waste have one entry for each
    period and category, the others category ''. `day` counts days since 1970-01-01 UTC, `period` is the same as ISO 8601 has it: the
    day of the reservation, or of the part of it. `cause` says why, `by` who. `price_version` is the price table that made micros of a
    settlement; empty where none was used.
    """

    __tablename__ = "ledger"
    __table_args__ = (
        Index("ledger_run", "run_id", "generation"),
        # All that sums of charges read.
        Index("ledger_spend", "tenant", "day", "kind", "at", "category", "amount"),
    )

    id: str = Field(primary_key=True)
    tenant: str
    run_id: str
    generation: int
    node_id: str
    attempt: int
    kind: str
    category: str = ""
    amount: int = _big()
    day: int = 0
    by: str = ""
    at: int = _big()
    price_version: str | None = _text(optional=True)
    period: str = ""
    cause: str = _text()
    released: int = _big()
    to_hold: int = _big()


class UsageRow(SQLModel, table=True):
    """What an execution used, by unit and before any price: `lines` is JSON, `[["llm", "token", "600"], ..]`, quantities as text.

    `price_version` is the price table that made micros of it first.
    """

    __tablename__ = "usage"

    run_id: str = Field(primary_key=True)
    generation: int = Field(primary_key=True)
    node_id: str = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    price_version: str = _text()
    lines: str = _text()


class PriceTableRow(SQLModel, table=True):
    """A version of the prices, never changed; `prices` is JSON of micros as text by `category/unit`."""

    __tablename__ = "price_table"

    version: str = Field(primary_key=True)
    prices: str = _text()
    at: int = _big()
    by: str = _text()
    reason: str = _text()


class PriceChoiceRow(SQLModel, table=True):
    """The version that a tenant pays by now; `*` is everybody without one of its own."""

    __tablename__ = "price_choice"

    tenant: str = Field(primary_key=True)
    version: str
    at: int = _big()


class LearnedRow(SQLModel, table=True):
    """What executions of a task by a variant ('' is the task as it is) cost a tenant: how many, and sums by category.

    Sums stay below 2^63: at most 512 executions of at most 2^53-1 micros each.
    """

    __tablename__ = "learned"

    tenant: str = Field(primary_key=True)
    task: str = Field(primary_key=True)
    variant: str = Field(default="", primary_key=True)
    count: int = 0
    sum_llm: int = _big()
    sum_retrieval: int = _big()
    sum_storage: int = _big()
    sum_compute: int = _big()
    sum_other: int = _big()


class NoticeRow(SQLModel, table=True):
    """A notification that a tenant entered a level, or of a decision, for one channel: log, hook or webhook.

    `key` is tenant, period and level, or tenant and decision.

    `state` is pending, sent or dropped (`error` says why); a pending one that was tried has the `error` of its last try.
    """

    __tablename__ = "notice"
    __table_args__ = (Index("notice_due", "state", "tries", "due_at"),)

    id: str = Field(primary_key=True)
    key: str
    channel: str
    tenant: str
    body: str = _text()
    at: int = _big()
    state: str = "pending"
    tries: int = 0
    due_at: int = _big()
    error: str = _text()


class RequestRow(SQLModel, table=True):
    """What a request was answered, so that asking again gives the same answer."""

    __tablename__ = "request"
    __table_args__ = (Index("request_at", "at"),)

    id: str = Field(primary_key=True)
    at: int = _big()
    answer: str = _text()


class PauseRow(SQLModel, table=True):
    """A scope that is paused now: `platform`, `tenant:{id}` or `run:{run}.{generation}`; a resumed one has no row."""

    __tablename__ = "pause"

    scope: str = Field(primary_key=True)
    by: str = _text()
    reason: str = _text()
    at: int = _big()


class ScheduleRow(SQLModel, table=True):
    """A schedule of a tenant: its graph (`spec`: canonical JSON, deflated) and its terms, as `orchestrator.schedules.terms` has them.

    decided_to: no time up to it (ms) is to be decided again; it only grows while the terms stay. next_at: when the next one is due, None
    for never. version counts changes.
    """

    __tablename__ = "schedule"
    __table_args__ = (Index("schedule_next", "paused", "next_at"),)

    tenant: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    graph_name: str
    digest: str
    spec: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    cron: str | None = None
    every_s: int | None = None
    timezone: str = "UTC"
    catch_up: str = "one"
    overlap: str = "skip"
    jitter_s: int = 0
    budget: int | None = _big(optional=True)
    priority: int | None = None
    paused: int = 0
    version: int = 1
    created_at: int = _big()
    decided_to: int = _big()
    next_at: int | None = _big(optional=True)


class TickRow(SQLModel, table=True):
    """What was decided about a time of a schedule: due (to be submitted), submitted (`run_id`), skipped, missed or refused, by `reason`.

    retry_at: before this moment (ms) a due one is not tried again. The newest thousand of a schedule are kept, and every due one.
    """

    __tablename__ = "tick"
    __table_args__ = (Index("tick_state", "state", "retry_at"),)

    tenant: str = Field(primary_key=True)
    schedule: str = Field(primary_key=True)
    at: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    state: str
    reason: str = _text()
    run_id: str | None = None
    decided_at: int = _big()
    retry_at: int = _big()


class ReportRow(SQLModel, table=True):
    """A report that was made, once, about a period: `scope` is platform or tenant:{id}, `kind` day or month, `id` is `{scope}|{period}`.

    epoch, seq: the position of the log that it stands at. `body` is its JSON, deflated.
    """

    __tablename__ = "report"
    __table_args__ = (Index("report_scope", "scope", "kind", "period"), Index("report_made", "made_at"))

    id: str = Field(primary_key=True)
    scope: str
    kind: str
    period: str
    made_at: int = _big()
    epoch: int = _big()
    seq: int = _big()
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class FenceRow(SQLModel, table=True):
    """When everything of a scope, `platform` or `tenant:{id}`, was cancelled last: runs submitted up to then begin nothing."""

    __tablename__ = "fence"

    scope: str = Field(primary_key=True)
    by: str = _text()
    reason: str = _text()
    at: int = _big()


class IncidentRow(SQLModel, table=True):
    """Something that must never happen and did: two events with one id, a hole in the log."""

    __tablename__ = "incident"

    id: str = Field(primary_key=True)
    at: int = _big()
    kind: str
    detail: str = _text()


class CursorRow(SQLModel, table=True):
    """The single row that says up to where the log is in SQL; moved in the transaction that stores the events."""

    __tablename__ = "cursor"

    id: int = Field(default=1, primary_key=True)
    epoch: int = _big()
    seq: int = _big()


class AuditRow(SQLModel, table=True):
    """Who changed what, never changed itself: tenants, policies, pauses, admissions, cancellations. `data` is JSON."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_tenant", "tenant", "at"), Index("audit_at", "at", "id"), Index("audit_target", "target"))

    id: str = Field(primary_key=True)
    at: int = _big()
    actor: str
    action: str
    tenant: str | None = None
    target: str | None = None
    data: str = _text()


class PlainText(TypeDecorator[str]):
    """PostgreSQL's text, in the order that Python and SQLite have it, whatever the database's language is.

    PostgreSQL stores no NUL: it becomes U+FFFD. In JSON it is escaped, and stays what it is.
    """

    impl = Text(collation="C")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 (SQLAlchemy gives it)
        return value.replace("\0", "\ufffd") if value is not None and "\0" in value else value


def _table(model: type[SQLModel]) -> Table:
    table = SQLModel.metadata.tables[str(model.__tablename__)]
    assert isinstance(table, Table)
    for column in table.columns:
        if isinstance(column.type, String | AutoString):
            column.type = column.type.with_variant(PlainText(), "postgresql")
    return table


# The Core tables: the record is written by statements over many rows, never through a session.
tenant = _table(TenantRow)
policy = _table(PolicyRow)
run = _table(RunRow)
node = _table(NodeRow)
decision = _table(DecisionRow)
event = _table(EventRow)
chain = _table(ChainRow)
ledger = _table(LedgerRow)
usage = _table(UsageRow)
price_table = _table(PriceTableRow)
price_choice = _table(PriceChoiceRow)
learned = _table(LearnedRow)
notice = _table(NoticeRow)
request = _table(RequestRow)
pause = _table(PauseRow)
schedule = _table(ScheduleRow)
tick = _table(TickRow)
report = _table(ReportRow)
fence = _table(FenceRow)
incident = _table(IncidentRow)
cursor = _table(CursorRow)
audit = _table(AuditRow)

TABLES = (
    *(tenant, policy, run, node, decision, event, chain, ledger, usage),
    *(price_table, price_choice, learned, notice, report, request, pause, fence, schedule, tick, incident, cursor, audit),
)
