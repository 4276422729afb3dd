"""Reading from the record what tasks cost."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Engine, select

from cost.estimate import Learned, Means
from cost.money import CATEGORIES

from . import tables as t
from .read import open_record

AT_ONCE = 500


def learned_means(engine: Engine, tenant: str, tasks: Collection[str], variant: str = "") -> dict[str, dict[str, int]]:
    """Return the mean cost of executions for each of `tasks` that enough is known of, in micros by category. Raises Unavailable."""
    wanted, found = sorted(tasks), {}
    with open_record(engine) as connection:
        for first in range(0, len(wanted), AT_ONCE):
            names = t.learned.c.task.in_(wanted[first : first + AT_ONCE])
            mine = (t.learned.c.tenant == tenant) & (t.learned.c.variant == variant)
            for row in connection.execute(select(t.learned).where(mine, names)).mappings():
                mean = Learned(row["count"], {category: row[f"sum_{category}"] for category in CATEGORIES}).mean()
                if mean is not None:
                    found[row["task"]] = mean
    return found


class Terms(NamedTuple):
    """What a run was submitted with beside its graph; it is what every start of it goes by."""

    learned: Means
    strict: bool
    full: bool


def run_terms(engine: Engine, run_id: str, generation: int) -> Terms:
    """Return what a run was submitted with. Raises Unavailable."""
    of_run = (t.run.c.run_id == run_id) & (t.run.c.generation == generation)
    with open_record(engine) as connection:
        row = connection.execute(select(t.run.c.learned, t.run.c.strict, t.run.c.full).where(of_run)).one()
    return Terms(json.loads(row.learned or "{}"), bool(row.strict), bool(row.full))
