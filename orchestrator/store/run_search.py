"""Searching the record for runs: filters, counts by state, pages by key, the newest runs of each graph.

A run is listed once, with its newest generation. All that is filtered and counted lies in the indexes `run_recent` and `run_graph`; rows,
which hold whole graphs, are read for what is shown. Labels are in the rows only: a search for one looks at the newest `LABELLED_MAX` runs
that the other filters let through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Select, and_, case, exists, func, or_, select, text, tuple_
from sqlalchemy.engine import Connection

from . import tables as t
from .read import RunView, _run_columns, _run_view, open_record

SHOWN_MAX = 200
"""Runs on a page."""
LABELLED_MAX = 10_000
GRAPHS_MAX = 24
STRIP = 20
"""Runs in the strip of a graph."""
_STRIPS_LOOK_BACK = 2_000

RUN_ID = re.compile(r"[0-9a-z]{26}")

STATUSES = ("submitted", "held", "running", "cancelling", "refused")
OUTCOMES = ("succeeded", "degraded", "failed", "cancelled", "terminated_by_cost")
STATES = (*STATUSES, *OUTCOMES)
"""What a run is: its outcome once it has ended, else its status."""


@dataclass(frozen=True)
class Cursor:
    """The place of a run in the order of pages, newest first: `at` is when it was submitted, in ms."""

    at: int
    run_id: str
    generation: int

    def __str__(self) -> str:
        return f"{self.at}.{self.run_id}.{self.generation}"

    @staticmethod
    def parse(words: str) -> Cursor:
        """Return the cursor that `str` gave. Raises ValueError."""
        at, run_id, generation = words.split(".")
        return Cursor(int(at), run_id, int(generation))


@dataclass(frozen=True)
class Wanted:
    """Filters; None and () let everything through.

    label: name and value, or name and None for any value. words: the id of a run, or part of its id, key, tenant or graph, in any case.
    since, until: of the submission, epoch seconds.
    """

    states: tuple[str, ...] = ()
    tenant: str | None = None
    graph: str | None = None
    label: tuple[str, str | None] | None = None
    words: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class Found:
    """A page of runs, newest first; `after` is where the next one begins, None on the last.

    counts: runs by state, whatever states are wanted. partial: whether there were more runs than a search for a label looks at.
    """

    runs: tuple[RunView, ...]
    after: Cursor | None
    counts: Mapping[str, int]
    partial: bool


@dataclass(frozen=True)
class Strip:
    """The newest runs of a graph, oldest first: id, generation and state of each."""

    graph: str
    runs: tuple[tuple[str, int, str], ...]


def state_of(status: str, outcome: str | None) -> str:
    """Return the one word for what a run is."""
    return outcome if status == "ended" and outcome else status


def search_runs(engine: Engine, wanted: Wanted, before: Cursor | None = None, limit: int = 50) -> Found:
    """Return a page of the runs that fit, at most `limit` (1 to 200), and the counts of all that fit. Raises Unavailable."""
    limit = max(1, min(limit, SHOWN_MAX))
    with open_record(engine) as connection:
        partial = False
        if wanted.label is None:
            fitting = _fitting(wanted, _KEYS_AND_STATE)
            counts = _counts(connection, wanted)
        else:
            fitting = _labelled(wanted, wanted.label)
            counts, looked_at = _labelled_counts(connection, wanted, fitting)
            partial = looked_at > LABELLED_MAX
        some = sum(count for state, count in counts.items() if not wanted.states or state in wanted.states)
        rows = _page(connection, fitting, wanted.states, before, min(limit + 1, some))
    after = Cursor(*(rows[limit - 1][name] for name in ("submitted_at", "run_id", "generation"))) if len(rows) > limit else None
    return Found(tuple(_run_view(row) for row in rows[:limit]), after, counts, partial)


def graph_strips(engine: Engine, tenant: str | None = None) -> list[Strip]:
    """Return the newest runs of each of the graphs that ran last, at most 24, by name. Raises Unavailable."""
    newest = select(t.run.c.graph_name).order_by(t.run.c.submitted_at.desc()).limit(_STRIPS_LOOK_BACK)
    if tenant is not None:
        newest = newest.where(t.run.c.tenant == tenant)
    with open_record(engine) as connection:
        names = list(dict.fromkeys(connection.execute(newest).scalars()))[:GRAPHS_MAX]
        return [_strip(connection, name, tenant) for name in sorted(names)]


def generations(engine: Engine, run_id: str) -> list[tuple[int, str]]:
    """Return number and state of each generation of a run, oldest first. Raises Unavailable."""
    of_run = select(t.run.c.generation, t.run.c.status, t.run.c.outcome).where(t.run.c.run_id == run_id).order_by(t.run.c.generation)
    with open_record(engine) as connection:
        return [(row.generation, state_of(row.status, row.outcome)) for row in connection.execute(of_run)]


def _strip(connection: Connection, graph: str, tenant: str | None) -> Strip:
    columns = (t.run.c.run_id, t.run.c.generation, t.run.c.status, t.run.c.outcome)
    mine = select(*columns).where(t.run.c.graph_name == graph, _newest()).order_by(t.run.c.submitted_at.desc())
    if tenant is not None:
        mine = mine.where(t.run.c.tenant == tenant)
    rows = connection.execute(mine.limit(STRIP)).all()
    return Strip(graph, tuple((row.run_id, row.generation, state_of(row.status, row.outcome)) for row in reversed(rows)))


_KEYS = (t.run.c.submitted_at, t.run.c.run_id, t.run.c.generation)
_ORDER = tuple(column.desc() for column in _KEYS)


_KEYS_AND_STATE = (*_KEYS, t.run.c.status, t.run.c.outcome)

# Only a run that has ended has an outcome.
_SUMS = tuple(func.count(case(((t.run.c.status if state in STATUSES else t.run.c.outcome) == state, 1))).label(state) for state in STATES)


def _newest() -> Any:
    """The condition that a run has no later generation."""
    later = t.run.alias("later")
    return ~exists().where(later.c.run_id == t.run.c.run_id, later.c.generation > t.run.c.generation, text("later." + t.LATER))


def _fits(wanted: Wanted) -> list[Any]:
    """The conditions of all filters but label and state; what they look at lies in one of both indexes."""
    c = t.run.c
    fits = []
    # Not by the index of keys, which begins with the tenant and leads to a hundred thousand rows: no index fits an expression.
    if wanted.tenant is not None:
        fits.append(c.tenant.concat("") == wanted.tenant)
    if wanted.graph is not None:
        fits.append((c.graph_name.concat("") if wanted.words else c.graph_name) == wanted.graph)
    if wanted.since is not None:
        fits.append(c.submitted_at >= int(wanted.since * 1000))
    if wanted.until is not None:
        fits.append(c.submitted_at < int(wanted.until * 1000))
    if wanted.words and RUN_ID.fullmatch(wanted.words):
        fits.append(c.run_id == wanted.words)
    elif wanted.words:
        part = wanted.words.lower()
        fits.append(or_(*(func.lower(each).contains(part, autoescape=True) for each in (c.run_id, c.key, c.tenant, c.graph_name))))
    return fits


def _fitting(wanted: Wanted, columns: Sequence[Any]) -> Select[Any]:
    """The runs that fit but for their label and state, newest first."""
    return select(*columns).where(*_fits(wanted), _newest()).order_by(*_ORDER)


def _labelled(wanted: Wanted, label: tuple[str, str | None]) -> Select[Any]:
    """Those of the newest runs that fit which have the label."""
    name, value = label
    # As `run_row` writes them: a quote inside a text is escaped there, so this is found nowhere but at the label itself.
    part = json.dumps(name) + ": " if value is None else json.dumps({name: value})[1:-1]
    looked_at = _fitting(wanted, _KEYS).limit(LABELLED_MAX).subquery()
    same = and_(t.run.c.run_id == looked_at.c.run_id, t.run.c.generation == looked_at.c.generation)
    joined = select(*_KEYS_AND_STATE).select_from(looked_at.join(t.run, same))
    return joined.where(t.run.c.labels.contains(part, autoescape=True)).order_by(*_ORDER)


def _counts(connection: Connection, wanted: Wanted) -> dict[str, int]:
    """The counts by state, in one pass over an index: of all generations, less those that have a later one, which are few."""
    everything = connection.execute(select(*_SUMS).where(*_fits(wanted))).one()
    later = t.run.alias("later")
    former = and_(t.run.c.run_id == later.c.run_id, t.run.c.generation == later.c.generation - 1)
    superseded = select(*_SUMS).select_from(later.join(t.run, former)).where(text("later." + t.LATER), *_fits(wanted))
    over = connection.execute(superseded).one()
    found = {state: int(whole or 0) - int(less or 0) for state, whole, less in zip(STATES, everything, over, strict=True)}
    return {state: count for state, count in found.items() if count}


def _labelled_counts(connection: Connection, wanted: Wanted, fitting: Select[Any]) -> tuple[dict[str, int], int]:
    """The counts by state of what has the label, and how many runs there are to look at, at most one more than are looked at."""
    there = _fitting(wanted, _KEYS).limit(LABELLED_MAX + 1).subquery()
    each = fitting.order_by(None).subquery()
    counts: dict[str, int] = {}
    for row in connection.execute(select(each.c.status, each.c.outcome, func.count().label("n")).group_by(each.c.status, each.c.outcome)):
        state = state_of(row.status, row.outcome)
        counts[state] = counts.get(state, 0) + int(row.n)
    return counts, int(connection.execute(select(func.count()).select_from(there)).scalar() or 0)


def _page(connection: Connection, fitting: Select[Any], states: Sequence[str], before: Cursor | None, limit: int) -> list[dict[str, Any]]:
    some = fitting
    if states:
        live = [state for state in states if state in STATUSES]
        over = [state for state in states if state in OUTCOMES]
        some = some.where(or_(t.run.c.status.in_(live), and_(t.run.c.status == "ended", t.run.c.outcome.in_(over))))
    if before is not None:
        some = some.where(tuple_(*_KEYS) < (before.at, before.run_id, before.generation))
    keys = [(row.run_id, row.generation) for row in connection.execute(some.limit(limit))]
    if not keys:
        return []
    # Not by pairs, for which SQLite reads the whole table; the few other generations are passed over.
    rows = connection.execute(select(*_run_columns()).where(t.run.c.run_id.in_([run_id for run_id, _ in keys]))).mappings()
    by_key = {(row["run_id"], row["generation"]): dict(row) for row in rows}
    return [by_key[key] for key in keys if key in by_key]
