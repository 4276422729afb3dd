"""The command line: `headgate VERB ...`. Heavy imports happen inside the verbs, so that --help answers at once."""

from __future__ import annotations

import click

from orchestrator.cli import (
    approve,
    audit,
    budget,
    cancel,
    completion,
    console,
    deadline,
    decisions,
    estimate,
    generations,
    graph,
    ledger,
    logs,
    maintenance,
    pause,
    plan,
    prices,
    priority,
    queues,
    record,
    replay,
    report,
    run,
    schedule,
    stack,
    tenant,
    top,
    trace,
    verify,
    whatif,
    workers,
)
from orchestrator.cli.group import Headgate

__all__ = ["main"]


@click.group(cls=Headgate, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headgate", prog_name="headgate")
def main() -> None:
    """Task graphs on Celery for many tenants, each within a budget.

    stdout is data, stderr is progress. Exit codes: 0 ok, 1 the run failed, 2 usage, 3 cancelled, 4 refused by a budget or
    limit, 69 a service is down, 124 timeout, 130 detached with Ctrl-C.
    """


for command in (
    *(stack.demo, stack.up, stack.sweep, console.console),
    *(run.run, run.submit, run.watch, cancel.cancel, generations.rerun, priority.priority, deadline.deadline, audit.audit),
    *(record.runs, record.show, logs.logs, replay.replay, verify.verify, trace.trace),
    *(decisions.decisions, decisions.explain, decisions.agent, approve.approve),
    *(maintenance.prune, maintenance.migrate),
    *(plan.plan, plan.schema, graph.graph),
    *(tenant.tenant, pause.pause, pause.resume),
    *(queues.queues, workers.workers, top.top, budget.budget, completion.completion),
    *(schedule.schedule, schedule.backfill),
    *(prices.prices, estimate.estimate, whatif.whatif, ledger.ledger, report.report),
):
    main.add_command(command)
