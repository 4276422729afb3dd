"""What each artifact has, as models: docs/schemas/ is made from them by `python -m orchestrator.artifacts.schema docs/schemas`.

Amounts are whole micros of the tenant's currency, times epoch seconds. In a `.jsonl` each line is one of these.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Micros = Annotated[int, Field(description="whole micros of the tenant's currency")]
Time = Annotated[float, Field(ge=0, description="epoch seconds")]
Rate = Annotated[float, Field(ge=0, description="of what is committed against the limit; 1 for a limit of 0")]
Level = Literal["HEALTHY", "WARNING", "CRITICAL", "EXCEEDED"]
Sequence = Annotated[str, Field(pattern=r"^\d+-\d+$", description="position in the event log, epoch and sequence")]
Version = Literal[1]


class Artifact(BaseModel):
    """An artifact, or a part of one: no field is missing, and there is no other."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pool(Artifact):
    """The pools of a run at its end: what their live slots could take, and the load from which runs are parked, in nodes."""

    capacity: int
    backpressure_threshold: int


class Metrics(Artifact):
    """Nodes of a run by what became of them; what is in none of the three was cancelled, or never due because a parent failed.

    avg_latency_ms: from when a node was due to its end, null where none ran. max_concurrency_reached: most attempts at once.
    backpressure_events: how often the run was held because a pool was full.
    """

    total: int
    completed: int
    failed: int
    skipped: int
    avg_latency_ms: float | None
    max_concurrency_reached: int
    backpressure_events: int


class ReportedTask(Artifact):
    """A node of a run; `latency_ms` from when it was due to its end, null where it did not run."""

    task_id: str
    node_id: str
    status: str
    priority: str
    latency_ms: int | None
    error: Any


class ConcurrencyReport(Artifact):
    """execution/concurrency_report_{run_id}.json: one for each finished run, on every ending."""

    schema_version: Version
    run_id: str
    tenant_id: str
    pool: Pool
    metrics: Metrics
    tasks: list[ReportedTask]


class QueueState(Artifact):
    """execution/queue_state.json: what waits and runs; messages by tenant."""

    schema_version: Version
    pending: Annotated[dict[str, dict[str, int]], Field(description="tenant, then priority, to messages in line")]
    parked: Annotated[dict[str, int], Field(description="messages that wait for a place, a limit or the end of a pause")]
    in_progress: Annotated[dict[str, int], Field(description="messages that workers hold")]
    last_updated: Time


class TaskResult(Artifact):
    """execution/task_result_{task_id}.json: one for each node of a finished run; a line of task_results_{run_id}.jsonl above 1,000 nodes.

    result: null where there is none, or where it is large: then `result_reference` names its object in the place of results.
    """

    schema_version: Version
    task_id: str
    run_id: str
    node_id: str
    outcome: str
    result: Any
    result_reference: str | None
    timestamp: Time | None


class TraceLine(Artifact):
    """A line of execution/distributed_trace_{worker_id}.jsonl: one attempt. `status` is its outcome, `lost`, or `unfinished`."""

    schema_version: Version
    worker_id: str
    task_id: str
    run_id: str
    tenant_id: str
    node_id: str
    attempt: int
    started_at: Time
    completed_at: Time | None
    status: str
    error: Any


class WorkerSummary(Artifact):
    """execution/worker_summary_{worker_id}.json: one for each worker whose end is on record."""

    schema_version: Version
    worker_id: str
    name: str | None
    host: str | None
    pools: list[str]
    started: Time
    ended: Time
    how: Literal["retired", "dead", "lost"]
    executed: int
    succeeded: int
    failed: int
    success_rate: float | None
    throughput_per_s: float


class TopCost(Artifact):
    """A run by what it cost."""

    run_id: str
    generation: int
    graph: str
    state: str
    cost: Micros


class MonthUsage(Artifact):
    """The month of a tenant that has a limit for it."""

    period: str
    limit: Micros
    settled: Micros
    reserved: Micros
    rate: Rate
    level: Level


class BudgetUsage(Artifact):
    """tenants/{tenant_id}/budget_usage.json: the money of a tenant's day; `position` is how much of the log it knows.

    running_runs: under way, paused ones among them.
    """

    schema_version: Version
    tenant_id: str
    currency: str
    position: Sequence
    period: str
    limit: Micros
    settled: Micros
    reserved: Micros
    rate: Rate
    level: Level
    month: MonthUsage | None
    running_runs: int
    max_concurrent_runs: int
    cost_by_category: dict[str, Micros]
    top_costs: Annotated[list[TopCost], Field(max_length=100)]
    updated_at: Time


class ReportedBudget(Artifact):
    """A tenant's money of a period; without a limit of the month remaining and rate are null. level: at its end."""

    limit: Micros | None
    used: Micros
    remaining: Micros | None
    rate: float | None
    level: Level


class ReportedConcurrency(Artifact):
    """What a tenant may run at once."""

    max_concurrent_runs: int
    max_running_nodes: int | None


class Forecast(Artifact):
    """What a month has cost, and is likely to at its end: for each day left the mean of the last days."""

    period: str
    settled: Micros
    projected: Micros
    limit: Micros | None
    days_left: int
    pace_days: int


class DearRun(Artifact):
    """A run by what it was charged in the period; an ordinary task or a correction has no graph."""

    run_id: str
    generation: int
    graph: str | None
    state: str
    cost: Micros


class LateEntries(Artifact):
    """What was charged to an earlier day since the report before this one: by category or currency; below 0 where it was given back."""

    period: str
    micros: Micros
    by: dict[str, Micros]


class Spread(Artifact):
    """Median and 95th percentile, in seconds."""

    p50: float | None
    p95: float | None


class ReportedRuns(Artifact):
    """The runs that ended in the period, and how; refusals: of runs and of nodes."""

    submitted: int
    refusals: int
    ended: int
    outcomes: dict[str, int]
    refused: int
    queue_wait_s: Spread
    duration_s: Spread


class UnderWay(Artifact):
    """A run that was under way when the report was made."""

    run_id: str
    generation: int
    graph: str
    started_at: Time | None
    cost: Micros


class DayByCategory(Artifact):
    """What a day cost."""

    day: str
    by_category: dict[str, Micros]


class CostReport(Artifact):
    """tenants/{tenant_id}/cost_report_{date}.json: what a day or month cost; `position` is that of the ledger it stands at.

    labels: by label given at submission and its value; the values of each add up to all. waste: what of it superseded attempts spent.
    """

    schema_version: Version
    scope: Literal["tenant"]
    tenant_id: str
    name: str
    currency: str
    period: str
    position: Sequence
    made_at: Time
    complete: bool
    budget: ReportedBudget
    concurrency: ReportedConcurrency
    breakdown: dict[str, Micros]
    waste: Micros
    forecast: Forecast
    top: Annotated[list[DearRun], Field(max_length=10)]
    labels: dict[str, dict[str, Micros]]
    by_day: list[DayByCategory]
    late: list[LateEntries]
    runs: ReportedRuns
    running: list[UnderWay]


class ReportedTenant(Artifact):
    """A tenant's part: what it was charged, the worker time that it got, and would have got by its weight among those that got some."""

    tenant_id: str
    currency: str
    used: Micros
    runs_ended: int
    worker_s: float
    weight: int | None
    share: float | None
    due: float | None


class DearestRun(Artifact):
    """A run that ended in the period, by what it cost."""

    run_id: str
    generation: int
    tenant_id: str
    graph: str
    currency: str
    cost: Micros


class DayByCurrency(Artifact):
    """What a day cost, by currency."""

    day: str
    by_currency: dict[str, Micros]


class PlatformReport(Artifact):
    """reports/platform_report_{date}.json: a day or month of all tenants; amounts are by currency.

    fairness: Jain's index of worker time over weight, 1 where all got the same for theirs; who asked for less lowers it, too.
    """

    schema_version: Version
    scope: Literal["platform"]
    period: str
    position: Sequence
    made_at: Time
    complete: bool
    used: dict[str, Micros]
    breakdown: dict[str, dict[str, Micros]]
    forecast: dict[str, Forecast]
    runs: ReportedRuns
    fairness: float | None
    tenants: list[ReportedTenant]
    top: Annotated[list[DearestRun], Field(max_length=20)]
    by_day: list[DayByCurrency]
    late: list[LateEntries]


class Projection(Artifact):
    """What a decision expected of a tenant's period."""

    current: Micros | None
    projected: Micros | None
    confidence: float | None


class CostDecision(Artifact):
    """{graph_name}/{run_id}/cost_decision.json: the latest decision of the cost agent about a run."""

    schema_version: Version
    decision: str
    tenant_id: str
    run_id: str
    generation: int
    trigger: str
    cause: str | None
    action: str
    reason: str
    exposure: Micros | None
    remaining: Micros | None
    rate: float | None
    projection: Projection
    breakdown: dict[str, Micros]
    flags: list[str]
    concurrency_factor: float | None
    plan: list[dict[str, Any]]
    applied: Any
    applied_at: Time | None
    observed: bool
    policy_version: int | None
    inputs_hash: str
    decided_at: Time


class CostDecisionLine(CostDecision):
    """A line of cost_decisions.jsonl: a decision with all that it looked at, as text, so that it can be made again."""

    inputs: str | None


class LogHead(BaseModel):
    """The first line of {graph_name}/{run_id}/events.jsonl: what was submitted."""

    model_config = ConfigDict(extra="allow")

    schema_version: Version
    run_id: str
    generation: int
    tenant: str
    graph: dict[str, Any] | None


class LogStep(Artifact):
    """An event, byte for byte, with its link in the chain."""

    position: Sequence
    link: str
    passed: bool
    event: dict[str, Any]


class LogFoot(Artifact):
    """The last line: the sealed end of the chain, and what the record said of the run."""

    events: int
    last: Sequence
    link: str
    seal: str
    key_id: str
    record: dict[str, Any]
    mac: str


MODELS: Final[dict[str, Any]] = {
    "concurrency_report": ConcurrencyReport,
    "queue_state": QueueState,
    "task_result": TaskResult,
    "distributed_trace": TraceLine,
    "worker_summary": WorkerSummary,
    "budget_usage": BudgetUsage,
    "cost_report": CostReport,
    "platform_report": PlatformReport,
    "cost_decision": CostDecision,
    "cost_decisions": CostDecisionLine,
    "events": LogHead | LogStep | LogFoot,
}
"""The model of each kind of artifact, or of its lines."""


def schemas() -> dict[str, str]:
    """Return the JSON Schema of each kind of artifact, as the text of its file."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: json.dumps(dialect | TypeAdapter(model).json_schema(), indent=1) + "\n" for name, model in MODELS.items()}


def main() -> None:
    """Write every schema into the folder that the command names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / f"{name}.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
