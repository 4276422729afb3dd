"""Approval: what was terminated by its cost, or is held for somebody's word, goes on because somebody says so; in bulk after a mistake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Engine, func, or_, select
from sqlalchemy.engine import Connection

from orchestrator import generations
from orchestrator.pauses import resume
from orchestrator.store import tables as t
from orchestrator.store.decisions import STOPPING
from orchestrator.store.read import LIMIT_MAX, open_record
from tenancy.errors import HeadgateError, Refused, Unavailable

if TYPE_CHECKING:
    from orchestrator.kernel import Kernel

TERMINATED = "terminated_by_cost"


@dataclass(frozen=True)
class Waiting:
    """A run that waits for an approval: its newest generation, and what an approval would open or let go on.

    why: terminated (its cost ended it), held (a decision paused it), or refused (it was approved, and admission refused it). at: since
    when, epoch seconds.
    """

    run_id: str
    generation: int
    tenant: str
    graph: str
    why: str
    at: float


@dataclass(frozen=True)
class Approved:
    """What became of an approval: the generation that goes on, or the sentence that says why none does."""

    run_id: str
    generation: int | None
    error: str | None = None


def waiting(
    engine: Engine, *, tenant: str | None = None, run: str | None = None, since: float | None = None, limit: int = LIMIT_MAX
) -> list[Waiting]:
    """Return the runs that wait for an approval since then (epoch seconds), oldest first, at most `limit`. Raises Unavailable."""
    newest = select(t.run.c.run_id, func.max(t.run.c.generation).label("generation")).group_by(t.run.c.run_id)
    for column, wanted in ((t.run.c.tenant, tenant), (t.run.c.run_id, run)):
        if wanted is not None:
            newest = newest.where(column == wanted)
    last, before = newest.subquery(), t.run.alias()
    # A generation that an approval opened and admission refused has ended nothing: the one before it still waits.
    terminated = select(before.c.run_id).where(
        before.c.run_id == t.run.c.run_id, before.c.generation < t.run.c.generation, before.c.outcome == TERMINATED
    )
    columns = (t.run.c.run_id, t.run.c.generation, t.run.c.tenant, t.run.c.graph_name, t.run.c.status, t.run.c.finished_at)
    statement = select(*columns).join(last, (last.c.run_id == t.run.c.run_id) & (last.c.generation == t.run.c.generation))
    statement = statement.where(or_(t.run.c.outcome == TERMINATED, (t.run.c.status == "refused") & terminated.exists()))
    if since is not None:
        statement = statement.where(t.run.c.finished_at >= int(since * 1000))
    with open_record(engine) as connection:
        rows = connection.execute(statement.order_by(t.run.c.finished_at, t.run.c.run_id).limit(max(1, min(limit, LIMIT_MAX)))).all()
        held = _held(connection, tenant, run, since)
    ended = [
        Waiting(
            row.run_id,
            row.generation,
            row.tenant,
            row.graph_name,
            "refused" if row.status == "refused" else "terminated",
            row.finished_at / 1000,
        )
        for row in rows
    ]
    return sorted([*ended, *held], key=lambda each: (each.at, each.run_id))[:limit]


def _held(connection: Connection, tenant: str | None, run: str | None, since: float | None) -> list[Waiting]:
    """The live runs that a decision paused until somebody approves."""
    from orchestrator.govern.order import BY

    paused = select(t.pause.c.scope, t.pause.c.at, t.pause.c.by).where(t.pause.c.scope.startswith("run:"))
    found: list[Waiting] = []
    for row in connection.execute(paused):
        run_id, _, generation = row.scope.removeprefix("run:").rpartition(".")
        of_run = (t.run.c.run_id == run_id) & (t.run.c.generation == int(generation))
        known = connection.execute(select(t.run.c.tenant, t.run.c.graph_name).where(of_run)).one_or_none()
        if (
            known is None
            or tenant not in (None, known.tenant)
            or run not in (None, run_id)
            or (since is not None and row.at < since * 1000)
        ):
            continue
        acted = (t.decision.c.run_id == run_id) & (t.decision.c.generation == int(generation)) & (t.decision.c.observed == 0)
        of_pauses = select(t.decision.c.action, t.decision.c.at).where(acted, t.decision.c.action.in_((*STOPPING, "restore")))
        last = connection.execute(of_pauses.order_by(t.decision.c.number.desc()).limit(1)).one_or_none()
        if last is None or last.action != "hold":
            continue
        # One that the agent paused waits until that pause is over, also where whoever approved it died before that.
        since_then = (t.audit.c.action == "run.approved") & (t.audit.c.target == run_id) & (t.audit.c.at >= last.at)
        if row.by == BY or connection.execute(select(t.audit.c.id).where(since_then).limit(1)).one_or_none() is None:
            found.append(Waiting(run_id, int(generation), known.tenant, known.graph_name, "held", row.at / 1000))
    return found


def to_approve(engine: Engine, run_id: str) -> int:
    """Return the generation that an approval is about: the last that its cost ended, or that was opened and refused; else the newest."""
    rows = select(t.run.c.generation, t.run.c.outcome, t.run.c.status).where(t.run.c.run_id == run_id)
    with open_record(engine) as connection:
        found = connection.execute(rows.order_by(t.run.c.generation.desc())).all()
    newest = found[0]
    if newest.status == "refused":
        return int(newest.generation)
    return int(next((row.generation for row in found if row.outcome == TERMINATED), newest.generation))


def approve(kernel: Kernel, engine: Engine, run_id: str, generation: int, budget_micros: int | None, reason: str, by: str) -> int:
    """Let a run go on that its cost has ended, or that is held, and return the generation that does; it is on record then.

    generation: the one that is approved; approved before, the answer is the generation that was opened then. A run that is held goes on
    itself, with at least that budget. Raises Refused where there is nothing to approve, BudgetRefused and RunsLimit where it is not
    admitted all the same, Unknown and Unavailable.
    """
    if not reason.strip():
        raise Refused(f"an approval of run {run_id} needs a reason; say why it may go on")
    if any(each.why == "held" and each.generation == generation for each in waiting(engine, run=run_id)):
        # Noted first: whoever dies before the pause is ended leaves a run that still waits, and is approved again.
        kernel.state.approve(run_id, generation, budget_micros, reason, by)
        resume(kernel.link, engine, f"run:{run_id}.{generation}", reason, by)
        return generation
    return generations.approve(kernel, engine, run_id, generation, budget_micros, reason, by)


def approve_each(kernel: Kernel, engine: Engine, runs: list[Waiting], reason: str, by: str) -> list[Approved]:
    """Approve each of these; what one is refused for keeps back no other. Raises Unavailable."""
    done: list[Approved] = []
    for each in runs:
        try:
            done.append(Approved(each.run_id, approve(kernel, engine, each.run_id, each.generation, None, reason, by)))
        except Unavailable:
            raise
        except HeadgateError as error:
            done.append(Approved(each.run_id, None, str(error)))
    return done
