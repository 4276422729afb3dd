"""Requests to let go of events: logs of runs that are long over, and of ordinary tasks, leave the record a piece at a time."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, exists, func, literal_column, select, tuple_, update
from sqlalchemy.engine import Connection

from cost.period import MS_PER_DAY
from cost.task_ledger import GENERATION
from orchestrator.store import tables as t

from .trail import leave_trail

Request = dict[str, Any]
Answer = dict[str, Any]

KEPT_DAYS_MIN: Final = 1
EVENTS_AT_ONCE: Final = 5_000
CHAINS_AT_ONCE: Final = 200
"""What one request takes at most: the transaction is that of a whole batch, and others wait for theirs."""


def decide_prune(connection: Connection, event: Request) -> Answer:
    """Return the answer to a request: `done` when nothing was left, `more` when there is, both with what was taken; or `invalid`.

    Runs, nodes, the ledger, decisions, reports and the audit stay, and so does what belongs to no run. A generation that is begun with is
    finished first: its log is no longer checked, and its replay says that it is gone.
    """
    try:
        at, before = int(event["at"]), int(event["before"])
    except (KeyError, ValueError, TypeError) as error:
        return {"status": "invalid", "reason": str(error)}
    if before > at - KEPT_DAYS_MIN * MS_PER_DAY:
        return {"status": "invalid", "reason": f"what is younger than {KEPT_DAYS_MIN} day is still read"}
    taken, runs = _runs(connection, before)
    tasks = 0
    if taken < EVENTS_AT_ONCE and runs < CHAINS_AT_ONCE:
        of_tasks, tasks = _tasks(connection, before)
        taken += of_tasks
    answers = _answers(connection, before)
    more = taken >= EVENTS_AT_ONCE or max(runs, tasks) >= CHAINS_AT_ONCE or answers >= EVENTS_AT_ONCE
    told = {"events": taken, "runs": runs, "tasks": tasks, "answers": answers}
    if taken or answers:
        said = {"before": before, **told}
        leave_trail(connection, event, f"prune.{event['request']}", "record.pruned", "record", said, tenant=None)
    return {"status": "more" if more else "done", **told}


def _runs(connection: Connection, before: int) -> tuple[int, int]:
    """Take events of generations that ended before a time; return how many, and how many generations have none left."""
    r = t.run.c
    wanted = select(r.run_id, r.generation).where(_over(before)).order_by(r.finished_at, r.run_id, r.generation)
    taken = ended = 0
    for run_id, generation in connection.execute(wanted.limit(CHAINS_AT_ONCE)).all():
        of_run = and_(t.event.c.run_id == run_id, t.event.c.generation == generation)
        taken += _events(connection, of_run, EVENTS_AT_ONCE - taken)
        whole = taken < EVENTS_AT_ONCE
        connection.execute(delete(t.chain).where(t.chain.c.run_id == run_id, t.chain.c.generation == generation))
        connection.execute(update(t.run).where(r.run_id == run_id, r.generation == generation).values(logged=0 if whole else 1))
        if not whole:
            break
        ended += 1
    return taken, ended


def _over(before: int) -> ColumnElement[bool]:
    """Which generations are long over, and so is every later one of their run: it is replayed with what it adopted of them."""
    r, later = t.run.c, t.run.alias()
    goes_on = and_(later.c.run_id == r.run_id, later.c.generation > r.generation, func.coalesce(later.c.finished_at, before) >= before)
    return and_(r.logged > literal_column("0"), r.finished_at < before, ~exists().where(goes_on))


def _tasks(connection: Connection, before: int) -> tuple[int, int]:
    """Take the logs of ordinary tasks that said nothing since a time; return how many events, and of how many tasks."""
    c = t.chain.c
    last = and_(t.event.c.epoch == c.epoch, t.event.c.seq == c.seq)
    silent = select(c.run_id, c.events).join(t.event, last).where(_OF_TASKS, t.event.c.at < before).order_by(c.epoch, c.seq)
    found = connection.execute(silent.limit(CHAINS_AT_ONCE)).all()
    names = [row.run_id for row in found]
    if names:
        connection.execute(delete(t.event).where(t.event.c.run_id.in_(names), t.event.c.generation == GENERATION))
        connection.execute(delete(t.chain).where(c.run_id.in_(names), c.generation == GENERATION))
    return sum(row.events for row in found), len(names)


# As the index has it, and of the chain: an event has columns of these names, too.
_OF_TASKS = and_(t.chain.c.generation == literal_column("0"), t.chain.c.run_id != literal_column("''"))


def _events(connection: Connection, which: Any, most: int) -> int:
    place = (t.event.c.epoch, t.event.c.seq)
    first = select(*place).where(which).order_by(*place).limit(most)
    return connection.execute(delete(t.event).where(tuple_(*place).in_(first))).rowcount


def _answers(connection: Connection, before: int) -> int:
    """Take what requests were answered, which nobody repeats after so long, and notifications that are done; return how many."""
    old = select(t.request.c.id).where(t.request.c.at < before).order_by(t.request.c.at).limit(EVENTS_AT_ONCE)
    gone = connection.execute(delete(t.request).where(t.request.c.id.in_(old))).rowcount
    told = select(t.notice.c.id).where(t.notice.c.state != "pending", t.notice.c.at < before).limit(EVENTS_AT_ONCE)
    return int(gone) + int(connection.execute(delete(t.notice).where(t.notice.c.id.in_(told))).rowcount)


def prunable(connection: Connection, before: int) -> dict[str, int]:
    """Return how many generations and tasks a request for a time would take, and what they have of events."""
    r, c = t.run.c, t.chain.c
    counted = select(func.count().label("n"), func.coalesce(func.sum(c.events), 0).label("events"))
    of_run = and_(c.run_id == r.run_id, c.generation == r.generation)
    runs = connection.execute(counted.select_from(t.run.outerjoin(t.chain, of_run)).where(_over(before))).one()
    last = and_(t.event.c.epoch == c.epoch, t.event.c.seq == c.seq)
    tasks = connection.execute(counted.select_from(t.chain.join(t.event, last)).where(_OF_TASKS, t.event.c.at < before)).one()
    return {"events": int(runs.events) + int(tasks.events), "runs": int(runs.n), "tasks": int(tasks.n)}
