"""Many claimants on one budget, at once: the limit is never passed, and three accounts of the money agree to the micro."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import Running, until
from ulid import ULID

from benchmarks.money.books import Rows, beyond_limits, disagreements, executions, read_counters, read_record
from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.recorder.loop import Recorder
from orchestrator.recorder.tenants import create_tenant
from orchestrator.settings import Settings
from orchestrator.store import read
from tenancy.errors import BudgetRefused
from tenancy.policy import Policy
from tests.integration.hands import drain, make_recorder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROCESSES, THREADS = 8, 125
TENANT, LIMIT = "amber", 300_000


def most_committed(events: Rows, tenant: str) -> int:
    """The most that was ever committed, by the log: after each of its events, in their order."""
    committed = most = 0
    for event in events:
        if event.get("tenant") != tenant:
            continue
        if event["t"] in ("node.began", "money.reserved", "money.extended"):
            committed += int(event["amount"])
        elif event["t"] == "money.settled":
            committed += int(event["amount"]) - int(event["reserved"])
        elif event["t"] == "money.voided":
            committed -= int(event["reserved"])
        most = max(most, committed)
    return most


@contextmanager
def watched(look: Callable[[], int]) -> Iterator[list[int]]:
    """What `look` sees inside the block, again and again."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(look())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@pytest.fixture
def recorder(redis_server: RedisServer, settings: Settings) -> Iterator[Recorder]:
    recorder = make_recorder(redis_server, settings)
    with recorder.engine.begin() as connection:
        policy = Policy(limit_per_day_micros=LIMIT, max_concurrent_runs=1_000)
        create_tenant(connection, TENANT, TENANT, policy, 0, actor="test")
    recorder.prepare()
    yield recorder
    recorder.link.close()
    recorder.artifacts.close()
    recorder.engine.dispose()


def committed_of(client: Any, tenant: str) -> int:
    day = int(client.time()[0]) // 86_400
    return sum(int(value or 0) for value in client.hmget(f"hg1:spent:{tenant}:{day}", ["settled", "reserved"]))


def test_a_thousand_claimants_of_eight_processes_never_pass_the_limit_and_every_account_agrees(
    recorder: Recorder, redis_server: RedisServer
) -> None:
    client = recorder.link.client
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)])}
    program = [sys.executable, str(HERE / "claimants.py"), redis_server.client_url, TENANT, str(THREADS)]
    processes = [
        subprocess.Popen([*program, str(number)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    until(lambda: client.zcard("hg1:incarnations") == PROCESSES, 40)
    with watched(lambda: committed_of(client, TENANT)) as seen:
        client.set("go", 1)
        told = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, [error[-500:] for _, error in told]
    answers: Counter[str] = Counter()
    for said, _ in told:
        answers.update(json.loads(said))
    runs = answers["run admitted"] + answers["run refused"] + answers["run held"]
    assert runs + answers["task run"] + answers["task refused"] == PROCESSES * THREADS
    assert min(answers[kind] for kind in ("run refused", "task refused", "run same", "task same")) > 0, answers
    assert max(seen) <= LIMIT

    drain(recorder)
    with recorder.engine.connect() as connection:
        record = read_record(connection)
    assert disagreements(record, read_counters(client, [TENANT], record.live)) == []
    found = executions(record.events)
    assert beyond_limits(found.values(), {TENANT: (LIMIT, None)}) == []
    assert sum(sum(one.beyond.values()) for one in found.values()) == 0, "every charge was covered before it counted"
    assert len(found) == answers["run settled"] + answers["task settled"]
    most = most_committed(record.events, TENANT)
    assert LIMIT // 2 < most <= LIMIT  # holds are part of exposure, and not of what is committed
    assert client.hmget(f"hg1:tenant:{TENANT}", ["held", "reserved", "running"]) == ["0", "0", "0"]


def test_two_hundred_parallel_charges_of_one_are_two_hundred(recorder: Recorder) -> None:
    link = recorder.link

    def charge(number: int) -> list[str]:
        name = f"one-{number}"
        said, attempt = link.call("cost/task_begin", name, "pay", TENANT, 1, "c", "", "", "", "w", 60_000)
        assert said == "run"
        with ThreadPoolExecutor(2) as both:  # and each of them is told twice at once
            report = ("cost/task_report", name, "pay", attempt, "other=1", "signal", TENANT, "", "")
            return sorted(both.map(lambda _: str(link.call(*report)), range(2)))

    with ThreadPoolExecutor(50) as pool:
        assert set(map(tuple, pool.map(charge, range(200)))) == {("same", "settled")}
    assert committed_of(link.client, TENANT) == 200
    drain(recorder)
    with recorder.engine.connect() as connection:
        record = read_record(connection)
    assert disagreements(record, read_counters(link.client, [TENANT], record.live)) == []
    assert sum(row["amount"] for row in record.ledger if row["kind"] == "settle") == 200


def test_real_workers_serve_as_many_claimants_as_the_budget_has_room_for(stack: Running) -> None:
    tenant, cost, room, claimants = f"claim-{str(ULID())[-10:].lower()}", 1_000, 25, 60
    stack.client.tenants.create(tenant, limit_per_day_micros=room * cost, max_concurrent_runs=claimants)
    # CPU time costs too: what is set aside for it is never used up.
    params, estimate = {"category": "llm", "micros": cost - 200}, {"llm": cost - 200, "compute": 200}
    graph = Graph.parse({"name": "claim", "nodes": [{"id": "n", "task": "synthetic.spend", "params": params, "estimate": estimate}]})

    def submit(_number: int) -> Any:
        try:
            return stack.client.submit(graph, tenant=tenant)
        except BudgetRefused:
            return None

    with watched(lambda: committed_of(stack.redis, tenant)) as seen, ThreadPoolExecutor(claimants) as pool:
        runs = [run for run in pool.map(submit, range(claimants)) if run is not None]
        until(lambda: all(run.status == "ended" for run in runs))
    assert room <= len(runs) <= 1000 * room // 800, "what was not used up makes room for others"
    assert {run.outcome for run in runs} == {"succeeded"}
    assert max(seen) <= room * cost
    assert len(runs) * (cost - 200) <= stack.client.tenants.usage(tenant).settled_micros <= room * cost

    def accounts() -> list[str]:
        with stack.client.engine.connect() as connection:
            record = read_record(connection)
        record.live = [run for run in record.live if run["tenant"] == tenant]
        assert most_committed(record.events, tenant) <= room * cost
        return disagreements(record, read_counters(stack.redis, [tenant], record.live))

    until(lambda: not accounts())
    assert len(read.list_runs(stack.client.engine, tenant=tenant, limit=1_000)) == claimants
