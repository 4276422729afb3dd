"""What people and beat read often is found by indexes, on every database: no table that grows with the work is read whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from orchestrator.reports.period import Period
from orchestrator.reports.tenant_report import tenant_report
from orchestrator.store import live, log_pieces, read, run_ends, run_nodes, run_search, schedules, spend
from orchestrator.store import tables as t
from orchestrator.store.budgets import read_budget
from orchestrator.store.chain import read_heads, rebuilds
from orchestrator.store.decisions import last_numbers, list_decisions, open_decisions
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.ledger import charges, run_entries, sums_of_days, texts_between
from orchestrator.store.position import Position
from tests.query_plans import plans_of
from tests.stored_runs import NOW_MS, run_id, store_runs, store_tenants

pytestmark = pytest.mark.both_records
GROWING = {"run", "node", "event", "chain", "ledger", "usage", "audit", "decision", "request"}
"""Tables with a row for each run or more."""
DAY = NOW_MS // 86_400_000
RUN = run_id(7)

CALLS: dict[str, Callable[[Engine], Any]] = {
    "a run": lambda engine: read.show_json(engine, RUN),
    "the newest runs": lambda engine: run_search.search_runs(engine, run_search.Wanted()),
    "a tenant's runs": lambda engine: run_search.search_runs(engine, run_search.Wanted(tenant="acme", states=("failed",))),
    "graphs": lambda engine: run_search.graph_strips(engine, None),
    "events of a run": lambda engine: read.get_events(engine, RUN, after=Position(1, 1)),
    "what it cost": lambda engine: read.run_cost(engine, RUN),
    "events of a node": lambda engine: run_nodes.node_events(engine, RUN, 1, "n1"),
    "money of a node": lambda engine: run_nodes.node_money(engine, RUN, 1, "n1"),
    "audit of a tenant": lambda engine: read.audit(engine, "acme"),
    "audit": lambda engine: read.audit(engine),
    "audit of a run": lambda engine: read.audit(engine, run=RUN),
    "decisions of a run": lambda engine: list_decisions(engine, run=RUN, generation=1),
    "decisions of a tenant": lambda engine: list_decisions(engine, tenant="acme"),
    "decisions": lambda engine: list_decisions(engine, since=NOW_MS / 1000),
    "a tenant's budget": lambda engine: read_budget(engine, "acme", DAY),
    "a tenant's report": lambda engine: tenant_report(engine, "acme", Period.of_day(DAY), NOW_MS),
    "days of a tenant": lambda engine: spend.daily_spend(engine, "acme", DAY - 30, DAY),
    "spent lately": lambda engine: spend.spent_since(engine, ["acme", "beta"], [DAY - 1, DAY], NOW_MS),
    "refusals": lambda engine: spend.refusals(engine, ["acme"], NOW_MS),
    "costly runs": lambda engine: spend.costliest(engine, "acme", NOW_MS - 86_400_000),
    "charges of days": lambda engine: list(charges(engine, "acme", DAY, DAY)),
    "what ended": lambda engine: run_ends.run_ends(engine, Position(1, 5), 100),
    "a piece of the log": lambda engine: log_pieces.piece_after(engine, Position(1, 5), 100, ("node.ended",)),
    "the end of the log": lambda engine: log_pieces.newest_but(engine, 100),
    "times of a schedule": lambda engine: schedules.ticks(engine, "acme", "nightly"),
}
INSIDE: dict[str, Callable[[Any], Any]] = {
    "live runs": lambda connection: list(live.live_runs(connection)),
    "runs that wait": live.held_runs,
    "decisions to go on with": open_decisions,
    "numbers of decisions": last_numbers,
    "entries of a run": lambda connection: run_entries(connection, RUN, 1),
    "sums of days": lambda connection: sums_of_days(connection, "acme", [DAY]),
    "texts of events": lambda connection: texts_between(connection, 1, 5, 10),
    "ends of chains": lambda connection: read_heads(connection, {(RUN, 1)}),
    "rebuilds": lambda connection: rebuilds(connection, Position(1, 1)),
}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    store_tenants(engine, ["acme", "beta"])
    store_runs(engine, 200, tenants=("acme", "beta"))
    with engine.begin() as connection:
        connection.execute(insert(t.cursor).values(id=1, epoch=1, seq=9))
        event = {"epoch": 1, "at": NOW_MS, "type": "node.ended", "run_id": RUN, "generation": 1, "data": "{}"}
        connection.execute(insert(t.event), [event | {"seq": seq} for seq in range(1, 9)])
    yield engine
    engine.dispose()


def whole_tables(plan: str) -> set[str]:
    """The tables that a plan reads whole, without an index."""
    scanned = re.findall(r"Seq Scan on (\w+)", plan) + re.findall(r"^SCAN (\w+)(?! USING)\b", plan, re.MULTILINE)
    return {name for name in scanned if name in GROWING}


@pytest.mark.parametrize("what", [*CALLS, *INSIDE])
def test_what_is_read_often_reads_no_growing_table_whole(engine: Engine, what: str) -> None:
    def call() -> None:
        if what in CALLS:
            CALLS[what](engine)
            return
        with engine.connect() as connection:
            INSIDE[what](connection)

    plans = plans_of(engine, call)
    assert plans
    for statement, plan in plans.items():
        assert whole_tables(plan) == set(), f"{statement}\n{plan}"
