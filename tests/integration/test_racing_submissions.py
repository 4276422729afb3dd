"""More submissions than a tenant may run, from several processes at once, one of them killed: the limit holds and nothing leaks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Running, until
from ulid import ULID

from orchestrator.store import read
from orchestrator.sweeper import Sweeper

HERE = Path(__file__).resolve().parent
SUBMISSIONS, PLACES = (17, 17, 16), 10
"""Of each process, and how many may run."""
TIMEOUT_S = 60


class Race:
    """Several processes that submit for one tenant, and what they printed."""

    def __init__(self, stack: Running, tenant: str, files: Path) -> None:
        self.stack, self.tenant = stack, tenant
        self.start_sign, self.log = files / "go", files / "log"
        self.lines: list[list[str]] = []
        self.processes: list[subprocess.Popen[str]] = []
        settings = stack.client.settings
        environment = {**os.environ, **settings.environment(), "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
        for count in SUBMISSIONS:
            command = [sys.executable, str(HERE / "racers.py"), tenant, str(count), str(self.start_sign), str(self.log)]
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            self.processes.append(process)
            self.lines.append([])
        self.readers = [threading.Thread(target=self.read, args=(at,)) for at in range(len(SUBMISSIONS))]
        for reader in self.readers:
            reader.start()

    def read(self, at: int) -> None:
        for line in self.processes[at].stdout or ():
            self.lines[at].append(line.strip())

    def end(self) -> None:
        for process, reader in zip(self.processes, self.readers, strict=True):
            process.wait(TIMEOUT_S)
            reader.join(TIMEOUT_S)
            if process.stdout:
                process.stdout.close()

    def runs(self) -> dict[str, str]:
        return {run.run_id: run.status for run in read.list_runs(self.stack.client.engine, tenant=self.tenant, limit=1000)}

    def counter(self, name: str) -> int:
        return int(str(self.stack.redis.hget(f"hg1:tenant:{self.tenant}", name) or 0))

    def settled(self) -> Counter[str]:
        """What became of all runs on record, once none of them is between two states.

        What the killed client had put on record, and no more, the sweeper completes: here, because the workers' slots are full of nodes
        that wait for the start sign, and beat's tick waits behind them.
        """
        sweeper = Sweeper(self.stack.client.kernel, self.stack.client.engine)

        def found() -> Counter[str] | None:
            sweeper.sweep()
            return None if "submitted" in (statuses := Counter(self.runs().values())) else statuses

        settled: Counter[str] = until(found, TIMEOUT_S)
        return settled

    def is_clean(self) -> bool:
        redis, names = self.stack.redis, [f"{run}.1" for run in self.runs()]
        leaks: list[Any] = [self.counter("running"), self.counter("held"), redis.zcard(f"hg1:line:{self.tenant}")]
        leaks += [redis.zscore("hg1:waiting", self.tenant) or 0, sum(map(int, redis.hvals("hg1:loading")))]
        leaks += [value for value in redis.hmget("hg1:caps", names) if value]
        leaks += [name for name in names if redis.zscore("hg1:runs", name) is not None]
        return not any(leaks)


@pytest.fixture
def begin(stack: Running, tenant: str, tmp_path: Path) -> Iterator[Callable[[], Race]]:
    """Begins a race, whose processes end with the test, whatever becomes of it."""
    begun: list[Race] = []

    def race() -> Race:
        begun.append(Race(stack, tenant, tmp_path))
        return begun[-1]

    yield race
    for each in begun:
        each.start_sign.touch()
        for process in each.processes:
            process.kill()
        each.end()


@pytest.fixture
def tenant(stack: Running) -> str:
    return f"race-{str(ULID())[-10:].lower()}"


def test_of_fifty_racing_submissions_ten_run_and_the_others_wait_also_those_of_a_client_that_was_killed(
    stack: Running, tenant: str, begin: Callable[[], Race]
) -> None:
    stack.client.tenants.create(tenant, max_concurrent_runs=PLACES)
    race = begin()
    until(lambda: len(race.lines[0]) >= 2)
    race.processes[0].kill()
    race.end()
    found = race.settled()
    printed = [line for lines in race.lines for line in lines]
    assert set(printed) <= set(race.runs())
    assert len(printed) >= sum(SUBMISSIONS[1:]) + 2
    assert found["held"] + PLACES == sum(found.values())
    assert set(found) == {"held", "running"}
    assert race.counter("running") == PLACES
    assert stack.redis.zcard(f"hg1:line:{tenant}") == found["held"]

    order = list(stack.redis.zrange(f"hg1:line:{tenant}", 0, -1))
    race.start_sign.touch()
    until(lambda: set(race.runs().values()) == {"ended"}, TIMEOUT_S)
    admitted = sorted((read_at(stack, name.rsplit(".", 1)[0]), name) for name in order)
    assert [name for _, name in admitted] == order, "a run overtook another"
    assert most_at_once(stack, list(race.runs())) == PLACES
    assert until(race.is_clean)
    assert {run.outcome for run in read.list_runs(stack.client.engine, tenant=tenant, limit=1000)} == {"succeeded"}


def test_of_fifty_racing_submissions_ten_run_and_the_others_are_refused_where_the_policy_rejects(
    stack: Running, tenant: str, begin: Callable[[], Race]
) -> None:
    stack.client.tenants.create(tenant, max_concurrent_runs=PLACES, on_runs_limit="reject")
    race = begin()
    race.end()
    found = race.settled()
    assert found == {"running": PLACES, "refused": sum(SUBMISSIONS) - PLACES}
    refusals = [line.split() for lines in race.lines for line in lines if line.startswith("refused")]
    assert len(refusals) == sum(SUBMISSIONS) - PLACES
    assert {tuple(words[:4]) for words in refusals} == {("refused", "RunsLimit", str(PLACES), str(PLACES))}
    assert all(float(words[4]) > 0 for words in refusals)
    refused = [run for run, status in race.runs().items() if status == "refused"]
    assert [stack.keys_of(run) for run in refused[:5]] == [[]] * 5
    race.start_sign.touch()
    until(lambda: set(race.runs().values()) == {"ended", "refused"}, TIMEOUT_S)
    assert until(race.is_clean)


def read_at(stack: Running, run: str) -> tuple[int, int]:
    """Position of a run's admission in the log."""
    found = next(event for event in read.get_events(stack.client.engine, run) if event.type == "run.admitted")
    return found.position.epoch, found.position.seq


def most_at_once(stack: Running, runs: list[str]) -> int:
    """How many of the runs had a place at the same time, at most."""
    events = [event for run in runs for event in read.get_events(stack.client.engine, run) if event.type in ("run.admitted", "run.ended")]
    running = most = 0
    for event in sorted(events, key=lambda event: event.position):
        running += 1 if event.type == "run.admitted" else -1
        most = max(most, running)
    return most
