"""A backfill runs each time of a range once, so many at a time, and goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import date
from typing import Any

import pytest
from running import Running, until
from ulid import ULID

from orchestrator.client import Client
from orchestrator.graph import Graph
from orchestrator.schedules.backfill import Backfill
from orchestrator.schedules.terms import Terms
from orchestrator.store import read
from tenancy.errors import Refused, Unknown

SINCE, UNTIL = date(2026, 3, 27), date(2026, 4, 2)
TERMS = Terms(cron="30 2 * * *", timezone="Europe/Berlin")


@pytest.fixture
def tenant(stack: Running) -> str:
    return stack.client.tenants.create(f"t-{str(ULID())[-12:].lower()}").id


def sleeping(seconds: float = 0.05) -> Graph:
    params = {"seconds": seconds, "inputs": [{"$schedule": "date"}]}
    return Graph.parse({"name": "daily", "nodes": [{"id": "a", "task": "synthetic.sleep", "params": params}]})


def at_once(client: Client, tenant: str) -> int:
    """The most runs of a tenant that were live at the same time."""
    runs = read.list_runs(client.engine, tenant=tenant, limit=1000)
    changes = sorted([(run.submitted_at, 1) for run in runs] + [(run.finished_at or 0.0, -1) for run in runs])
    live, most = 0, 0
    for _, change in changes:
        live += change
        most = max(most, live)
    return most


def test_each_time_of_the_range_runs_once_with_its_own_day_and_not_more_at_once_than_said(stack: Running, tenant: str) -> None:
    arguments: dict[str, Any] = {"tenant": tenant, "concurrency": 2, "cron": TERMS.cron, "timezone": TERMS.timezone}
    done = list(stack.client.backfill(sleeping(), SINCE, UNTIL, **arguments))
    assert sorted(each.at.isoformat() for each in done) == [
        "2026-03-27T02:30:00+01:00",
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
        "2026-03-31T02:30:00+02:00",
        "2026-04-01T02:30:00+02:00",
    ]
    assert {each.run.outcome for each in done} == {"succeeded"}
    assert at_once(stack.client, tenant) == 2
    again = list(stack.client.backfill(sleeping(), SINCE, UNTIL, **arguments))
    assert all(each.earlier for each in again)
    assert {each.run.run_id for each in again} == {each.run.run_id for each in done}


def test_a_backfill_that_was_killed_goes_on_where_it_was(stack: Running, tenant: str) -> None:
    client = stack.client
    client.schedules.create("daily", sleeping(0.3), tenant=tenant, cron=TERMS.cron, timezone=TERMS.timezone)
    words = ["backfill", "daily", "--tenant", tenant, "--from", str(SINCE), "--to", str(UNTIL), "--concurrency", "2"]
    argv = [sys.executable, "-c", "from orchestrator.cli import main; main()", *words]
    environment = {**os.environ, **client.settings.environment()}
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: process.poll() is not None or len(read.list_runs(client.engine, tenant=tenant)) >= 3, 60)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    before = len(read.list_runs(client.engine, tenant=tenant))
    assert 3 <= before < 6
    stack.redis.pexpire(f"hg1:lease:backfill:{tenant}:daily", 100)  # it ends by itself, seconds later
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 6), done
    assert f"6 times, {6 - before} of them run now" in done.stderr
    keys = Counter(run.key for run in read.list_runs(client.engine, tenant=tenant))
    assert set(keys.values()) == {1}
    assert sorted(map(str, keys))[2] == "schedule.daily.2026-03-29T01:00:00Z"
    assert at_once(client, tenant) == 2
    client.schedules.delete("daily", tenant=tenant)


def test_two_processes_do_not_backfill_the_same_at_once(stack: Running, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Backfill(stack.client, sleeping(0.2), TERMS, SINCE, UNTIL, tenant=tenant).run()
    next(first)
    monkeypatch.setattr("orchestrator.schedules.backfill.PATIENCE_S", 0.2)
    with pytest.raises(Refused, match="another process is at a backfill of 'daily'"):
        list(Backfill(stack.client, sleeping(0.2), TERMS, SINCE, UNTIL, tenant=tenant).run())
    first.close()
    second = Backfill(stack.client, sleeping(0.2), TERMS, SINCE, date(2026, 3, 29), tenant=tenant).run()
    assert next(second).earlier is True
    second.close()


def test_limits_that_say_when_to_try_again_are_waited_for(stack: Running, tenant: str) -> None:
    stack.client.tenants.update(tenant, max_concurrent_runs=1, on_runs_limit="reject")
    done: list[Any] = []
    worker = threading.Thread(
        target=lambda: done.extend(Backfill(stack.client, sleeping(), TERMS, SINCE, date(2026, 3, 30), tenant=tenant, concurrency=3).run())
    )
    worker.start()
    worker.join(60)
    assert [each.run.outcome for each in done] == ["succeeded"] * 3


@pytest.mark.parametrize(
    ("since", "until_", "concurrency", "says"),
    [
        ("2026-03-27", "2026-03-27", 1, "ends before it begins"),
        ("2026-03-27", "2999-01-01", 1, "ends in the future"),
        ("yesterday", "2026-03-27", 1, "'yesterday' is no date or time"),
        ("2026-03-27", "2026-03-28", 0, "the concurrency is 0"),
        ("1971-01-01", "2026-03-28", 1, "more than 100,000 times"),
    ],
)
def test_a_range_that_does_not_fit_is_refused_and_nothing_runs(
    stack: Running, tenant: str, since: str, until_: str, concurrency: int, says: str
) -> None:
    with pytest.raises(Refused, match=says):
        Backfill(stack.client, sleeping(), Terms(every_s=60), since, until_, tenant=tenant, concurrency=concurrency)
    assert read.list_runs(stack.client.engine, tenant=tenant) == []
    with pytest.raises(Unknown):
        stack.client.backfill("nothing", "2026-03-27", "2026-03-28", tenant=tenant)
