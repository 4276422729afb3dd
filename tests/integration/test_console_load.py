"""The pages of a console over thousands of runs, as `./dev bench console` has them over a hundred thousand: indexes, and the loop."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from running import let_go
from sqlalchemy import Engine, event

from benchmarks.console.__main__ import GRAPHS, OVER_MS, alive, run_templates
from benchmarks.console.record import store_runs
from benchmarks.console.requests import LOOP_MAX_S, Connection, Named, added_s, openings, teller
from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store.decisions import list_decisions
from orchestrator.store.engine import open_engine
from orchestrator.store.log_pieces import newest_but, piece_after
from orchestrator.store.position import START
from orchestrator.store.run_nodes import get_node, last_event, node_columns, node_events, node_money, waits_s
from orchestrator.store.run_search import Wanted, generations, graph_strips, search_runs
from orchestrator.store.schedules import newest_ticks, schedules
from orchestrator.store.spend import costliest, daily_spend, refusals, spent_since, tenant_ids
from orchestrator.store.standing import not_enforced

pytestmark = pytest.mark.timeout(600)

RUNS, TENANTS, NODES = 2_000, 20, 1_000
ROUNDS = 20


@pytest.fixture(scope="module")
def looked_at() -> Iterator[tuple[str, Client, Named]]:
    """The URL of a console over many runs, with a client, and what there is to look at."""
    with TemporaryDirectory(prefix="hgload") as home:
        settings = Settings(home=Path(home), artifacts=False, reports=False)
        names = [f"tenant-{at:04}" for at in range(TENANTS)]
        with Stack(settings, 1, 2, beat=False) as stack:
            client = Client(settings.model_copy(update={"redis_url": stack.redis_url}))
            templates = run_templates(client)
            writer = open_engine(settings.resolved_database_url(), writer=True)
            now_ms = int(time.time() * 1000)
            for name in names:
                client.tenants.create(name)
            stored = store_runs(writer, templates, RUNS, names, graphs=GRAPHS, until_ms=now_ms, over_ms=OVER_MS)
            writer.dispose()
            assert stored["run"] == RUNS
            assert stored["event"] > 10 * RUNS
            assert stack.console_url is not None
            with alive(client, names, NODES, waiting=15, schedules=10) as named:
                yield stack.console_url.rstrip("/"), client, named
            let_go(client)


def test_every_page_and_every_click_is_answered_and_keeps_flowers_loop_from_nobody(looked_at: tuple[str, Client, Named]) -> None:
    url, _, named = looked_at
    connection = Connection(url)
    slow = {}
    for page in openings(named, teller(connection)):
        for path in dict.fromkeys((page.path, *page.data, *page.clicks)):
            connection.get(path)  # what is made once is made
            if (added := added_s(connection, url, path, ROUNDS, LOOP_MAX_S)) >= LOOP_MAX_S:
                slow[path] = added
    connection.close()
    assert not slow


def readings(client: Client, engine: Engine, named: Named) -> Iterator[Callable[[], Any]]:
    """What the pages read of the record."""
    run, tenant, now_ms = named.large, named.tenant, int(time.time() * 1000)
    filters: tuple[dict[str, Any], ...] = (
        {},
        {"states": ("failed", "running")},
        {"tenant": tenant},
        {"graph": named.graph},
        {"graph": named.graph, "tenant": tenant},
        {"label": ("batch", "7")},
        {"words": "key-9"},
        {"words": named.ended},
        {"words": "9", "graph": named.graph, "tenant": tenant, "label": ("team", None), "states": ("succeeded",)},
        {"since": now_ms / 1000 - 3_600},
        {"until": now_ms / 1000 - 86_400, "tenant": tenant},
    )
    for each in filters:
        found = search_runs(engine, Wanted(**each))
        yield lambda each=each: search_runs(engine, Wanted(**each))  # type: ignore[misc]
        if found.after is not None:
            yield lambda each=each, found=found: search_runs(engine, Wanted(**each), found.after)  # type: ignore[misc]
    yield from (
        lambda: graph_strips(engine),
        lambda: graph_strips(engine, tenant),
        lambda: read.get_run(engine, run),
        lambda: generations(engine, run),
        lambda: read.run_cost(engine, run),
        lambda: waits_s(engine, run, 1),
        lambda: last_event(engine, run, 1),
        lambda: node_columns(engine, run, 1),
        lambda: get_node(engine, run, 1, "n0", {}),
        lambda: node_events(engine, run, 1, "n0"),
        lambda: node_money(engine, run, 1, "n0"),
        lambda: read.get_events(engine, run, 1, limit=201),
        lambda: read.show_json(engine, run),
        lambda: list_decisions(engine, run=run, generation=1),
        lambda: list_decisions(engine, tenant=tenant, limit=20),
        lambda: read.audit(engine, tenant, since=now_ms / 1000 - 86_400, limit=30),
        lambda: spent_since(engine, [tenant], (now_ms // 86_400_000,), now_ms - 3_600_000),
        lambda: daily_spend(engine, tenant, now_ms // 86_400_000 - 29, now_ms // 86_400_000),
        lambda: costliest(engine, tenant, now_ms - 7 * 86_400_000),
        lambda: refusals(engine, [tenant], now_ms - 86_400_000),
        lambda: tenant_ids(engine, None, tenant, 26),
        lambda: not_enforced(engine),
        lambda: read.pauses(engine),
        lambda: newest_ticks(engine, [(each.tenant, each.name) for each in schedules(engine)][:5], 10),
        lambda: newest_but(engine, 20_000),
        lambda: piece_after(engine, START, 500, ()),
    )


def test_no_page_reads_a_whole_table_of_runs_or_of_what_they_left(looked_at: tuple[str, Client, Named]) -> None:
    _, client, named = looked_at
    engine = open_engine(client.settings.resolved_database_url())
    said: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _x, sql, parameters, *_: said.append((sql, parameters)))
    for each in readings(client, engine, named):
        each()
    asked = {sql: parameters for sql, parameters in said if sql.lstrip().upper().startswith("SELECT")}
    assert len(asked) > 30
    scanned = []
    with engine.connect() as connection:
        for sql, parameters in asked.items():
            plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters)]
            scanned += [(step, sql) for step in plan if re.match(r"SCAN (run|event|node|ledger|decision|audit|usage)\b(?!.*INDEX)", step)]
    engine.dispose()
    assert scanned == []
