"""Verbs about the cost agent's decisions: decisions, explain, agent."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.audit import Since
from orchestrator.cli.output import as_json, at, money, print_fields, print_json, print_table, say
from orchestrator.cli.tenant import audited
from orchestrator.cli.words import RUN

if TYPE_CHECKING:
    from orchestrator.store.decisions import DecisionView

REASON_CHARS = 70
MOST = 10_000


@click.command()
@click.option("--run", "run_id", type=RUN, metavar="RUN", help="Only those about this run.")
@click.option("--tenant", metavar="ID", help="Only those about this tenant's runs.")
@click.option("--since", type=Since(), metavar="WHEN", help="Only from then on: 30m, 2h, 7d ago, or 2026-11-22T10:00.")
@click.option("--would-have", is_flag=True, help="Sum what decisions that were only observed would have given up, and saved.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="At most so many, the newest.")
@as_json
def decisions(run_id: str | None, tenant: str | None, since: float | None, would_have: bool, limit: int, as_json: bool) -> None:
    """List the decisions of the cost agent, oldest first: what tripped them, what they gave up, and what that saved by the estimates."""
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings
    from orchestrator.store.read import get_tenant

    client = recorded(Settings.load())
    if tenant is not None:
        get_tenant(client.engine, tenant)
    run = None if run_id is None else find_run(client.engine, run_id)
    observed = True if would_have else None
    found = client.decisions(run=run, tenant=tenant, since=since, observed=observed, limit=MOST if would_have else limit)
    if would_have:
        if len(found) == MOST:
            say(f"these are the newest {MOST} decisions; a later --since, or --tenant, has all that it names")
        _sums(found, as_json)
    elif as_json:
        print_json([shown(each) for each in found])
    else:
        rows = [
            (each.id, at(each.at), each.tenant, each.trigger, _action(each), str(len(each.plan)), _units(each.saving), _short(each.reason))
            for each in found
        ]
        print_table(("decision", "at", "tenant", "trigger", "action", "changes", "saves", "reason"), rows)


@click.command()
@click.argument("subject", metavar="RUN[/NODE]")
@click.option("--generation", type=click.IntRange(1), metavar="N", help="Of this generation; the newest unless said.")
@as_json
def explain(subject: str, generation: int | None, as_json: bool) -> None:
    """Walk back from what a node, or a run, has come to: the decision, what tripped it, and the charge behind that.

    RUN is the id of a run, the beginning of one, or `latest`.
    """
    from orchestrator.cli.reference import find_run
    from orchestrator.cli.service import recorded
    from orchestrator.settings import Settings

    name, slash, node = subject.partition("/")
    if slash and not node:
        raise click.UsageError(f"which node of {name}? write RUN/NODE, or only RUN")
    client = recorded(Settings.load())
    run = find_run(client.engine, RUN.convert(name, None, None))
    steps = client.explain(run, node or None, generation=generation)
    if as_json:
        print_json([asdict(step) for step in steps])
        return
    for number, step in enumerate(steps):
        click.echo(f"{'<- ' if number else ''}{step.text}" + (f" ({at(step.at)})" if step.at is not None else ""))


@click.group()
def agent() -> None:
    """The cost agent: whether it decides, and its switch for the whole platform."""


@agent.command("pause")
@audited
@as_json
def pause_(reason: str, by: str | None, as_json: bool) -> None:
    """Have the agent decide nothing until it is resumed, through restarts of everything. What it has decided stays.

    Amounts are refused all the same: a node whose money is not there does not start.
    """
    _switch(off=True, reason=reason, by=by, as_json=as_json)


@agent.command("resume")
@audited
@as_json
def resume_(reason: str, by: str | None, as_json: bool) -> None:
    """Have the agent decide again, at its next turn."""
    _switch(off=False, reason=reason, by=by, as_json=as_json)


@agent.command()
@as_json
def status(as_json: bool) -> None:
    """Say whether the agent decides, and what it did in the last day."""
    from orchestrator.cli.pause import since
    from orchestrator.cli.service import recorded
    from orchestrator.pauses import AGENT
    from orchestrator.settings import Settings
    from orchestrator.store.read import pauses

    client = recorded(Settings.load())
    paused = next((each for each in pauses(client.engine) if each.scope == AGENT), None)
    found = client.decisions(since=time.time() - 86_400)
    last = found[-1] if found else None
    open_ = [each for each in found if each.is_open]
    observed = sum(each.observed for each in found)
    if as_json:
        said = {"paused": None if paused is None else asdict(paused), "last": None if last is None else shown(last)}
        print_json({**said, "decisions": len(found), "observed": observed, "not_applied": len(open_)})
        return
    print_fields(
        {
            "agent": "decides" if paused is None else f"paused {since(paused)}",
            "last day": f"{len(found)} decisions, {observed} of them only observed, {len(open_)} not applied yet",
            "last": None if last is None else f"{last.id} at {at(last.at)}: {_action(last)}, {last.reason}",
        }
    )


def _switch(*, off: bool, reason: str, by: str | None, as_json: bool) -> None:
    from orchestrator.cli.service import running
    from orchestrator.pauses import AGENT
    from orchestrator.settings import Settings

    client = running(Settings.load())
    changed = (client.pause if off else client.resume)(AGENT, reason=reason, by=by)
    if as_json:
        print_json({"scope": AGENT, "paused": off, "changed": changed})
    elif off:
        click.echo(f"the cost agent {'is' if changed else 'was already'} paused")
    else:
        click.echo(f"the cost agent {'decides again' if changed else 'was not paused'}")


def shown(decision: DecisionView) -> dict[str, Any]:
    """Return a decision as --json prints it: without its inputs, which may be large, but with their hash."""
    return {name: value for name, value in asdict(decision).items() if name != "inputs"}


def _sums(found: list[DecisionView], as_json: bool) -> None:
    from orchestrator.would_have import would_have

    sums = would_have(found)
    if as_json:
        print_json([asdict(each) for each in sums])
        return
    if not sums:
        click.echo("nothing was only observed")
        return
    rows = [
        (each.tenant, str(each.runs), str(each.decisions), _counted(each.given_up), _units(each.saving_micros), _counted(each.stopped))
        for each in sums
    ]
    print_table(("tenant", "runs", "decisions", "would have given up", "saved", "and stopped"), rows)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "-"


def _action(decision: DecisionView) -> str:
    if decision.observed:
        return f"{decision.action} (observed)"
    return f"{decision.action} (open)" if decision.is_open else decision.action


def _units(micros: int) -> str:
    return f"-{money(-micros)}" if micros < 0 else str(money(micros))


def _short(text: str) -> str:
    return text if len(text) <= REASON_CHARS else f"{text[: REASON_CHARS - 3]}..."
