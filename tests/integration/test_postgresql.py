"""A whole platform on PostgreSQL: its server is killed under load, and a dump is restored where there was nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from running import Running, let_go, producer, until
from sqlalchemy import select

from orchestrator.auditor import Auditor
from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.log_key import log_key
from orchestrator.replay.verify import verify
from orchestrator.reports.period import Period
from orchestrator.reports.tenant_report import tenant_report
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store import tables as t
from orchestrator.store.ledger import CHARGES
from orchestrator.store.sums import total
from tenancy.errors import Unavailable
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.timeout(400)
TASKS = ("node_tasks",)
TIMEOUT_S = 150
KEY = "a key of the tests, long enough"


@contextmanager
def platform(url: str, home: Path) -> Iterator[Running]:
    """A stack whose record is that database."""
    settings = Settings(home=home, database_url=url, log_key=KEY)
    with Stack(settings, 2, 2, TASKS, console=False) as running:
        client = producer(Settings(home=home, redis_url=running.redis_url, database_url=url, log_key=KEY, tasks=TASKS))
        with redis.Redis.from_url(running.client_url, decode_responses=True) as connection:
            yield Running(running, client, connection)
        let_go(client)


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    made = Path(tempfile.mkdtemp(prefix="hg")), Path(tempfile.mkdtemp(prefix="hg"))
    yield made
    for home in made:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def own_postgres(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server of this test's own, that it may kill."""
    server = PostgresServer(postgres.binaries)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def wide(width: int) -> Graph:
    """Nodes that charge and take a moment, and one that waits for all of them."""
    names = [f"n{index}" for index in range(width)]
    nodes: list[dict[str, Any]] = [
        {"id": name, "task": "node_tasks.use", "params": {"tokens": 3, "seconds": 0.05}, "estimate": {"llm": 5}} for name in names
    ]
    return Graph.parse({"name": "wide", "nodes": [*nodes, {"id": "end", "task": "synthetic.noop", "after": names}]})


def waiting(release: Path, log: Path) -> Graph:
    """A node that ends when there is a file, and one after it."""
    first = {"id": "first", "task": "node_tasks.wait_for", "params": {"path": str(release), "log": str(log)}}
    return Graph.parse({"name": "waiting", "nodes": [first, {"id": "then", "task": "synthetic.noop", "after": ["first"]}]})


def counted(stack: Running, tenant: str, runs: list[RunHandle]) -> int:
    """What a tenant was charged, when everything that knows of it says the same; nothing happened that must not."""
    engine = stack.client.engine
    auditor = Auditor(stack.client.kernel.link, engine)
    until(lambda: not auditor.audit(tenant), 60)  # Redis and the ledger
    mine = (t.ledger.c.tenant == tenant) & t.ledger.c.kind.in_(CHARGES)
    with engine.connect() as connection:
        charged = connection.execute(select(total(t.ledger.c.amount)).where(mine)).scalar() or 0
        assert connection.execute(select(t.incident)).all() == []
    assert charged == sum(run.cost_micros for run in runs)
    assert charged == stack.client.tenants.usage(tenant).settled_micros
    assert [each.differences for each in verify(engine, log_key(stack.client.settings)) if each.differences] == []
    return charged


def test_a_server_that_is_killed_under_load_costs_nothing_but_time(
    own_postgres: PostgresServer, homes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with platform(own_postgres.url(own_postgres.make_database()), homes[0]) as stack:
        stack.client.tenants.create("acme")
        runs = [stack.client.submit(wide(60), tenant="acme") for _ in range(2)]
        for _ in range(2):
            before = int(stack.redis.xinfo_stream("hg1:events")["entries-added"])
            until(lambda before=before: int(stack.redis.xinfo_stream("hg1:events")["entries-added"]) > before + 20, TIMEOUT_S)
            own_postgres.kill()
            with monkeypatch.context() as patch:
                patch.setattr("orchestrator.recorder.ask.ANSWER_S", 1.0)
                with pytest.raises(Unavailable):
                    stack.client.submit(wide(1), tenant="acme", key="once")
            own_postgres.start()
            runs.append(stack.client.submit(wide(30), tenant="acme"))
        again = stack.client.submit(wide(1), tenant="acme", key="once")  # whether or not the first ones came through
        runs.append(again)
        assert [run.wait(TIMEOUT_S).outcome for run in runs] == ["succeeded"] * 5
        assert {node["attempt"] for run in runs for node in run.nodes} == {1}
        assert len(read.list_runs(stack.client.engine, tenant="acme")) == 5
        assert counted(stack, "acme", runs) > 0


def test_a_dump_restored_where_there_was_nothing_is_the_same_and_unfinished_runs_go_on(
    postgres: PostgresServer, homes: tuple[Path, Path], tmp_path: Path
) -> None:
    release, log, dump = tmp_path / "release", tmp_path / "log", tmp_path / "dump.sql"
    first, second = postgres.make_database(), postgres.make_database()
    try:
        with platform(postgres.url(first), homes[0]) as stack:
            stack.client.tenants.create("acme")
            stack.client.tenants.update("acme", limit_per_day_micros=5_000_000, reason="more")
            ended = stack.client.submit(wide(10), tenant="acme", key="first")
            assert ended.wait(TIMEOUT_S).outcome == "succeeded"
            stack.client.tenants.create("beta")
            unfinished = stack.client.submit(waiting(release, log), tenant="beta")
            until(log.exists)
            held = stack.client.submit(wide(20), tenant="beta")
            stack.client.pause(f"run:{held.run_id}", reason="later")
            counted(stack, "acme", [ended])
            told = told_about(stack, ended)
            postgres.dump(first, dump)
            release.touch()
            assert unfinished.wait(TIMEOUT_S).outcome == "succeeded"
        release.unlink()
        log.unlink()
        postgres.restore(dump, second)

        with platform(postgres.url(second), homes[1]) as stack:
            client = stack.client
            assert told_about(stack, client.run(ended.run_id)) == told
            assert client.submit(wide(10), tenant="acme", key="first").run_id == ended.run_id
            going, paused = client.run(unfinished.run_id), client.run(held.run_id)
            until(log.exists, TIMEOUT_S)
            release.touch()
            assert going.wait(TIMEOUT_S).outcome == "succeeded"
            assert going.nodes[0]["attempt"] > 1
            client.resume(f"run:{held.run_id}")
            assert paused.wait(TIMEOUT_S).outcome == "succeeded"
            counted(stack, "acme", [client.run(ended.run_id)])
            counted(stack, "beta", [going, paused])
    finally:
        for name in (first, second):
            postgres.drop_database(name)


def told_about(stack: Running, run: RunHandle) -> dict[str, Any]:
    """What a record says of its tenants, their policies and money, and a run that is over."""
    engine = stack.client.engine
    shown = read.show_json(engine, run.run_id)
    with engine.connect() as connection:
        of_run = select(t.ledger).where(t.ledger.c.run_id == run.run_id).order_by(t.ledger.c.id)
        entries = [dict(row) for row in connection.execute(of_run).mappings()]
    usage = stack.client.tenants.usage("acme")
    report = tenant_report(engine, "acme", Period.parse(usage.day), 0)
    audit = [(line.at, line.action, line.actor, line.field, line.old, line.new) for line in read.audit(engine, "acme")]
    return {
        "tenants": [(each.id, each.name, each.version, each.policy) for each in read.tenants(engine)],
        "usage": (usage.settled_micros, usage.limit_per_day_micros, dict(usage.by_category_micros)),
        "report": (report["budget"]["used"], report["breakdown"], [top["run_id"] for top in report["top"]]),
        "run": shown,
        "events": [(event.position, event.data) for event in read.get_events(engine, run.run_id)],
        "entries": entries,
        "audit": audit,
        "result": run.result("end"),
    }
