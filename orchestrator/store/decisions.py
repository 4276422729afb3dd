"""Reading the decisions of the cost agent: frozen values, newest last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.engine import Connection

from tenancy.errors import Unknown

from . import tables as t
from .read import LIMIT_MAX, open_record

STOPPING = ("terminate", "hold", "finish")
"""Actions after which nothing more of a run starts by itself."""


@dataclass(frozen=True)
class Change:
    """One thing that is given up or given back.

    `type` is skip, revoke, restore or the kind of a variant; `change` is what the node is then: skip, cancelled, as_is or a variant's name.
    """

    type: str
    node: str
    change: str
    reason: str
    saving: int


@dataclass(frozen=True)
class DecisionView:
    """A decision of the cost agent. Times are epoch seconds, amounts micros; None is: not yet, or not known.

    plan: what it wants changed; applied: what of that was done, None until all of it was. inputs: JSON of what it looked at, or `@` and
    the path of an object. cause: the execution `run.gen.node.attempt` or the node that tripped it, '' where nothing single did.
    """

    id: str
    tenant: str
    run_id: str
    generation: int
    number: int
    at: float
    trigger: str
    action: str
    reason: str
    flags: tuple[str, ...]
    inputs_hash: str
    inputs: str
    plan: tuple[Change, ...]
    projected: int | None
    confidence_permille: int | None
    concurrency_percent: int | None
    policy_version: int | None
    observed: bool
    cause: str
    applied_at: float | None
    applied: tuple[Change, ...] | None

    @property
    def is_open(self) -> bool:
        """Whether something of it is to be applied yet."""
        return self.applied_at is None and not self.observed and (bool(self.plan) or self.action in STOPPING)

    @property
    def saving(self) -> int:
        """What its plan saves, by the estimates; less than 0 where it restores."""
        return sum(change.saving for change in self.plan)


def list_decisions(
    engine: Engine,
    *,
    run: str | None = None,
    generation: int | None = None,
    tenant: str | None = None,
    since: float | None = None,
    observed: bool | None = None,
    limit: int = LIMIT_MAX,
) -> list[DecisionView]:
    """Return the newest `limit` (1 to 10,000) decisions that fit all of the filters given, oldest first. Raises Unavailable.

    since: only from then on, epoch seconds. observed: only those that were to touch nothing, or only the others.
    """
    wanted = {"run_id": run, "generation": generation, "tenant": tenant, "observed": None if observed is None else int(observed)}
    statement = select(t.decision).where(*(t.decision.c[name] == value for name, value in wanted.items() if value is not None))
    if since is not None:
        statement = statement.where(t.decision.c.at >= int(since * 1000))
    newest = statement.order_by(t.decision.c.at.desc(), t.decision.c.run_id.desc(), t.decision.c.number.desc())
    with open_record(engine) as connection:
        rows = connection.execute(newest.limit(max(1, min(limit, LIMIT_MAX)))).mappings()
        return [view(dict(row)) for row in rows][::-1]


def get_decision(engine: Engine, name: str) -> DecisionView:
    """Return one decision. Raises Unknown, Unavailable."""
    with open_record(engine) as connection:
        row = connection.execute(select(t.decision).where(t.decision.c.id == name)).mappings().first()
    if row is None:
        raise Unknown(f"there is no decision {name!r}; `headgate decisions` lists them")
    return view(dict(row))


def last_numbers(connection: Connection) -> dict[tuple[str, int], int]:
    """Return the number of the last decision of each live run, by run and generation: counting goes on from there."""
    live = (t.run.c.run_id == t.decision.c.run_id) & (t.run.c.generation == t.decision.c.generation) & t.run.c.status.in_(t.LIVE)
    columns = (t.decision.c.run_id, t.decision.c.generation)
    rows = connection.execute(select(*columns, func.max(t.decision.c.number).label("last")).join(t.run, live).group_by(*columns))
    return {(row.run_id, row.generation): int(row.last) for row in rows}


def open_decisions(connection: Connection) -> list[Mapping[str, Any]]:
    """Return the rows of decisions about live runs that were made and not applied to the end, in their order."""
    live = (t.run.c.run_id == t.decision.c.run_id) & (t.run.c.generation == t.decision.c.generation) & t.run.c.status.in_(t.LIVE)
    unapplied = t.decision.c.applied_at.is_(None) & (t.decision.c.observed == 0)
    rows = connection.execute(select(t.decision).join(t.run, live).where(unapplied).order_by(t.decision.c.at, t.decision.c.id))
    return [dict(row) for row in rows.mappings()]


def view(row: Mapping[str, Any]) -> DecisionView:
    """Return a row of the record as a decision."""
    same = ("id", "tenant", "run_id", "generation", "number", "trigger", "action", "reason", "inputs_hash", "inputs", "projected", "cause")
    applied_at = row["applied_at"]
    return DecisionView(
        **{name: row[name] for name in (*same, "confidence_permille", "concurrency_percent", "policy_version")},
        at=row["at"] / 1000,
        flags=tuple(str(flag) for flag in json.loads(row["flags"] or "[]")),
        plan=changes(json.loads(row["plan"] or "[]")),
        observed=bool(row["observed"]),
        applied_at=None if applied_at is None else applied_at / 1000,
        applied=None if row["applied"] is None else changes(json.loads(row["applied"])),
    )


def changes(told: Sequence[Mapping[str, Any]]) -> tuple[Change, ...]:
    """Return the modifications of an event."""
    return tuple(
        Change(
            str(each["type"]), str(each["node"]), str(each.get("change") or ""), str(each.get("reason") or ""), int(each.get("saving") or 0)
        )
        for each in told
    )
