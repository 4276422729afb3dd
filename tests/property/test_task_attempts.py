"""However long after its end a task comes again, no attempt of it is numbered as an earlier one was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clock import NOW_KEY, moved_clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cost import keys
from cost.task_ledger import ATTEMPTS_PER_HOUR, HOURS_FROM_MS, Claim, Delivery, TaskLedger, attempts_before
from orchestrator.embedded import RedisServer

TASK = "f3a1"
KEYS = [keys.task(TASK), keys.purse(f"task.{TASK}.0"), keys.reservations(f"task.{TASK}.0")]
HOUR_S = 3_600


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskLedger]:
    server = RedisServer(tmp_path_factory.mktemp("attempts"))
    server.start()
    with moved_clock():
        ledger = TaskLedger(lambda: server.client_url)
        yield ledger
        ledger.link.close()
    server.stop()


def prepared(ledger: TaskLedger, now_ms: int) -> None:
    client = ledger.link.client
    client.flushall()
    client.set(NOW_KEY, now_ms)
    client.hset("hg1:epoch", mapping={"epoch": 1, "server": ledger.link.server_id(), "seq": 0})
    client.hset("hg1:tenant:acme", mapping={"limit_day": 10**9, "max_runs": 1, "status": "active", "version": 1})


def pass_time(ledger: TaskLedger, seconds: int) -> None:
    """Move the clock of the scripts, and let go of what Redis would have let go of by then."""
    client = ledger.link.client
    client.incrby(NOW_KEY, seconds * 1_000)
    for key in KEYS:
        left = int(str(client.ttl(key)))
        if left >= 0 and left <= seconds:
            client.delete(key)
        elif left > 0:
            client.expire(key, left - seconds)


def run_once(ledger: TaskLedger, claim: str) -> Claim:
    found = ledger.begin(TASK, "t.a", "acme", 10, Delivery(claim, "", "", "", "w@h"))
    assert isinstance(found, Claim)
    assert ledger.report(found, "llm=3", "signal") == "settled"
    return found


gaps = st.sampled_from([0, 1, 1_799, HOUR_S - 1, HOUR_S, HOUR_S + 1, 2 * HOUR_S, 90_000])
storms = st.sampled_from([0, 0, 0, ATTEMPTS_PER_HOUR, 2_345])
rebuilds = st.sampled_from([0, 0, 0, 1, 11])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(start_s=st.integers(0, 2 * HOUR_S), steps=st.lists(st.tuples(gaps, storms, rebuilds), min_size=2, max_size=6))
def test_no_attempt_is_numbered_twice_however_late_a_task_comes_again(
    ledger: TaskLedger, start_s: int, steps: list[tuple[int, int, int]]
) -> None:
    prepared(ledger, HOURS_FROM_MS + 8_000 * HOUR_S * 1_000 + start_s * 1_000)
    client = ledger.link.client
    last, epoch = 0, 1
    for number, (gap, storm, rebuilt) in enumerate(steps):
        found = run_once(ledger, f"c{number}")
        assert found.attempt > last
        last = found.attempt
        if storm:  # as many claims as nobody waits for here
            last += storm
            client.hset(keys.task(TASK), "attempt", last)
            last = run_once(ledger, f"s{number}").attempt
        if rebuilt:
            epoch += rebuilt
            before = attempts_before(int(str(client.get(NOW_KEY)))) + (epoch - 1) * 100
            client.hset(keys.REBUILT, "attempts", before)
        pass_time(ledger, gap)


def test_a_countdown_of_two_hours_ends_in_entries_of_its_own(ledger: TaskLedger) -> None:
    prepared(ledger, HOURS_FROM_MS + 8_000 * HOUR_S * 1_000)
    first = run_once(ledger, "c1")
    again = run_once(ledger, "c2")
    pass_time(ledger, 2 * HOUR_S)
    assert not ledger.link.client.exists(*KEYS)
    late = run_once(ledger, "c3")
    assert [claim.ordinal for claim in (first, again, late)] == [1, 2, 1]
    assert [claim.attempt for claim in (first, again, late)] == [8_000_001, 8_000_002, 8_002_001]
    assert ledger.report(first, "llm=3", "signal") != "settled"  # a report that comes once more charges nothing
