"""What Redis says of a tenant and its runs at one moment, as rows; reading alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cost import keys as money
from cost.period import MS_PER_DAY, day_of, month_of
from orchestrator import keys
from orchestrator.pieces import pieces
from tenancy import keys as transport
from tenancy.link import Link

LOOKED_AT_ONCE: Final = 200
"""Runs that one round trip looks at."""

_RUN: Final = ("tenant", "status", "left", "estimate", "created", "stopped", "terminated", "waits", "grown")
_PURSE: Final = ("hold", "needed", "reserved", "spent", "open", "budget", "lapsed")
_DECISION: Final = ("n", "open", "plan", "last")

OF_TENANT: Final = 5
OF_RUN: Final = 5
"""Commands that a row is made of."""

_Command = tuple[str | int, ...]


@dataclass(frozen=True)
class RunRow:
    """A live run: what it is, its money, and its last decision; amounts in micros, times in ms.

    judged: how many nodes have a verdict. decisions: how many were made; open: the one that is being applied, with its plan (JSON);
    mark: what the last one was. stopped: why a failure keeps the rest from beginning; terminated: the decision by which it ends;
    waits: what a decision paused it for; paused: whether it is paused now, by whomever; lapsed: for so long that it holds nothing any more.
    grown: whether some of its nodes became others, which may cost more than was estimated.
    """

    rg: str
    tenant: str
    status: str
    left: int
    estimate: int
    created: int
    stopped: str
    terminated: str
    waits: str
    hold: int
    needed: int
    reserved: int
    spent: int
    open_executions: int
    budget: int | None
    decisions: int
    open: str
    plan: str
    mark: str
    judged: int
    paused: bool
    lapsed: bool
    grown: bool

    @property
    def run_id(self) -> str:
        """The run."""
        return self.rg.rpartition(".")[0]

    @property
    def generation(self) -> int:
        """Its generation."""
        return int(self.rg.rpartition(".")[2])

    @property
    def decidable(self) -> bool:
        """Whether there is anything that a decision could change."""
        # What holds nothing any more is decided on when it goes on: until then its money is for others.
        return self.status == "running" and self.left > 0 and not self.stopped and not self.terminated and not self.lapsed

    @property
    def in_hand(self) -> bool:
        """Whether a decision is half applied, or nodes of a terminated run came back to wait."""
        return bool(self.open) or (bool(self.terminated) and self.left > 0)

    @property
    def last(self) -> dict[str, Any]:
        """What the last decision was: action, flags, and the basis of the last verdict."""
        return dict(json.loads(self.mark)) if self.mark else {}


@dataclass(frozen=True)
class TenantRow:
    """A tenant: its policy and counters as they are in Redis, what is charged and reserved in day and month, levels, and runs in line."""

    id: str
    now_ms: int
    policy: Mapping[str, str]
    day: tuple[int, int]
    month: tuple[int, int]
    levels: Mapping[str, str]
    waiting: int

    @property
    def enforcement(self) -> str:
        """enforce, observe or off."""
        return self.policy.get("enforcement") or "enforce"


@dataclass(frozen=True)
class Survey:
    """A tenant with all of its live runs, at one moment.

    states, verdicts: by run and node; executions: by run, `node:attempt` to
    its reservation, of runs that were admitted before today.
    """

    tenant: TenantRow
    runs: Mapping[str, RunRow]
    states: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    verdicts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    executions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def live_runs(link: Link) -> dict[str, RunRow]:
    """Return every run that has money and is not over, by `run.generation`. Raises Unavailable."""
    found: dict[str, RunRow] = {}
    for names in pieces(link.read("ZRANGE", keys.RUNS, 0, -1), LOOKED_AT_ONCE):
        found |= _rows(names, link.read_at_once(*(command for name in names for command in _of_run(name))))
    return found


def look_at(link: Link, tenants: Sequence[str]) -> dict[str, TenantRow]:
    """Return these tenants, each at one moment. Raises Unavailable."""
    now_ms = link.now_ms()
    found: dict[str, TenantRow] = {}
    for some in pieces(tenants, LOOKED_AT_ONCE):
        replies = link.read_at_once(*(command for tenant in some for command in _of_tenant(tenant, now_ms)))
        found |= {tenant: _tenant(tenant, now_ms, row) for tenant, row in zip(some, pieces(replies, OF_TENANT), strict=True)}
    return found


def survey(link: Link, tenant: str, known: Sequence[RunRow]) -> Survey:
    """Return a tenant and these runs of it with all of their nodes, at one moment. Raises Unavailable."""
    now_ms, runs = link.now_ms(), [row.rg for row in known]
    old = [row.rg for row in known if row.created < day_of(now_ms) * MS_PER_DAY]
    replies: Iterator[Any] = iter(
        link.read_at_once(
            *_of_tenant(tenant, now_ms),
            *(command for rg in runs for command in _of_run(rg)),
            *(("HGETALL", keys.of_run("state", rg)) for rg in runs),
            *(("HGETALL", keys.of_run("verdict", rg)) for rg in runs),
            *(("HGETALL", money.reservations(rg)) for rg in old),
        )
    )
    row = _tenant(tenant, now_ms, [next(replies) for _ in range(OF_TENANT)])
    rows = _rows(runs, [next(replies) for _ in range(OF_RUN * len(runs))])
    states, verdicts = ({rg: dict(next(replies)) for rg in runs} for _ in range(2))
    return Survey(row, rows, states, verdicts, {rg: dict(next(replies)) for rg in old})


def _of_tenant(tenant: str, now_ms: int) -> list[_Command]:
    day = day_of(now_ms)
    return [
        ("HGETALL", money.tenant(tenant)),
        ("HMGET", money.spent(tenant, day), "settled", "reserved"),
        ("HMGET", money.spent_in_month(tenant, month_of(day)), "settled", "reserved"),
        ("HGETALL", money.level(tenant)),
        ("ZCARD", keys.line(tenant)),
    ]


def _tenant(tenant: str, now_ms: int, replies: Sequence[Any]) -> TenantRow:
    policy, day, month, levels, waiting = replies
    return TenantRow(tenant, now_ms, dict(policy), _pair(day), _pair(month), dict(levels), int(waiting))


def _pair(values: Sequence[str | None]) -> tuple[int, int]:
    return int(values[0] or 0), int(values[1] or 0)


def _of_run(rg: str) -> list[_Command]:
    return [
        ("HMGET", keys.of_run("run", rg), *_RUN),
        ("HMGET", money.purse(rg), *_PURSE),
        ("HMGET", keys.of_run("decision", rg), *_DECISION),
        ("HLEN", keys.of_run("verdict", rg)),
        ("SISMEMBER", transport.PAUSED, f"run:{rg}"),
    ]


def _rows(names: Sequence[str], replies: Sequence[Any]) -> dict[str, RunRow]:
    found: dict[str, RunRow] = {}
    for rg, (run, purse, decision, judged, paused) in zip(names, pieces(replies, OF_RUN), strict=True):
        if run[0] is None or purse[0] is None:
            continue  # over meanwhile; or cancelled while it waited, and without money
        left, estimate, created = (int(value or 0) for value in run[2:5])
        stopped, terminated, waits, grown = (value or "" for value in run[5:])
        hold, needed, reserved, spent, executions = (int(value or 0) for value in purse[:5])
        number, being_applied, plan, mark = decision
        found[rg] = RunRow(
            rg=rg,
            tenant=run[0],
            status=run[1],
            left=left,
            estimate=estimate,
            created=created,
            stopped=stopped,
            terminated=terminated,
            waits=waits,
            hold=hold,
            needed=needed,
            reserved=reserved,
            spent=spent,
            open_executions=executions,
            budget=int(purse[5]) if purse[5] else None,
            decisions=int(number or 0),
            open=being_applied or "",
            plan=plan or "",
            mark=mark or "",
            judged=int(judged),
            paused=bool(paused),
            lapsed=bool(purse[6]),
            grown=bool(grown),
        )
    return found


def kept(link: Link, rg: str) -> set[str]:
    """Return the nodes of a terminated run that run all the same. Raises Unavailable."""
    fields: list[str] = link.read("HKEYS", keys.of_run("decision", rg))
    return {name.removeprefix("kept:") for name in fields if name.startswith("kept:")}
