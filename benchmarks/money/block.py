"""One block: a Redis, a recorder and a driver of their own, faults between operations, checks after every piece of them."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from benchmarks.money.books import beyond_limits, disagreements, executions, read_counters, read_record
from benchmarks.money.driver import SWEEP_MS, Driver
from benchmarks.money.shapes import prepare
from cost.period import MS_PER_DAY
from orchestrator.embedded import RedisServer
from orchestrator.log_key import log_key
from orchestrator.recorder.__main__ import first_start
from orchestrator.recorder.loop import Recorder
from orchestrator.recorder.tenants import create_tenant
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import open_engine, reading
from tenancy.link import Link
from tenancy.policy import Policy
from tests.integration.cutting import cutting
from tests.property.clock import NOW_KEY, moved_clock

CHECK_EVERY = 1_250
OBSERVE_EVERY = 5
RECORD_EVERY = 100
ACTS = {
    "say": 52, "work": 22, "submit": 5, "echo": 7, "void": 1.5, "cancel": 0.7, "give_up": 1, "let_in": 2, "adjust": 1,
    "silence": 0.9, "wake": 1.2, "midnight": 0.25,
}  # fmt: skip
"""What happens how often, of about a hundred steps."""
FAULTS_EACH = 1_500
"""Steps between two SIGKILLs of Redis, on average; every second one loses the end of the log with it."""
TENANTS = {
    "amber": Policy(limit_per_day_micros=20_000, max_concurrent_runs=6),
    "basil": Policy(limit_per_day_micros=60_000, limit_per_month_micros=150_000, max_concurrent_runs=5),
    "coral": Policy(limit_per_day_micros=40_000, max_concurrent_runs=3, on_budget_limit="hold", max_waiting_runs=20),
}


def play(seed: int, number: int, operations: int) -> dict[str, Any]:
    """Play a block of at least so many operations and return what happened; the same seed and number do the same."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hgm", ignore_cleanup_errors=True) as place, moved_clock():
        block = Block(random.Random(f"{seed}.{number}"), Path(place))
        with block.running():
            block.play(operations)
    driver = block.driver
    return {
        "seed": seed,
        "block": number,
        "operations": driver.operations,
        "executions": block.executions,
        "counts": dict(sorted(driver.counts.items())),
        "checks": block.checks,
        "violations": driver.violations[:20],
        "seconds": round(time.monotonic() - began, 1),
    }


class Block:
    """A block at work."""

    driver: Driver

    def __init__(self, dice: random.Random, place: Path) -> None:
        self.dice, self.place = dice, place
        self.checks = self.executions = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything that a block needs, started and ended."""
        self.server = RedisServer(self.place / "redis")
        self.server.start()
        settings = Settings(home=self.place, redis_url=self.server.url)
        self.engine = open_engine(settings.resolved_database_url(), writer=True)
        first_start(self.engine, 0, log_key(settings))
        with self.engine.begin() as connection:
            for tenant, policy in TENANTS.items():
                create_tenant(connection, tenant, tenant, policy, 0, actor="driver")
        link = Link(self.server.client_url)
        now_ms = (time.time_ns() // 1_000_000 // MS_PER_DAY) * MS_PER_DAY + self.dice.randint(0, MS_PER_DAY)
        link.client.set(NOW_KEY, now_ms)
        self.recorder = Recorder(Link(self.server.client_url), self.engine, settings)
        self.recorder.prepare()
        try:
            with cutting(self.server.socket.with_name("lossy.sock"), self.server.socket) as proxy:
                lossy = Link(f"unix://{proxy.path}?db=0")
                self.driver = Driver(self.dice, link, lossy, proxy, prepare(settings), now_ms)
                for tenant, policy in TENANTS.items():
                    self.driver.limits[tenant] = (policy.limit_per_day_micros, policy.limit_per_month_micros)
                yield
                lossy.close()
        finally:
            link.close()
            self.recorder.link.close()
            self.recorder.artifacts.close()
            self.engine.dispose()
            self.server.stop()

    def play(self, operations: int) -> None:
        driver, names, weights = self.driver, list(ACTS), list(ACTS.values())
        driver.beat()
        checked = step = 0
        while driver.operations < operations and not driver.violations:
            step += 1
            getattr(driver, self.dice.choices(names, weights)[0])()
            if driver.now_ms - driver.swept_ms >= SWEEP_MS:
                driver.sweep()
            if step % OBSERVE_EVERY == 0:
                driver.observe()
            if self.dice.random() < 1 / RECORD_EVERY:
                self.drain()
            if self.dice.random() < 1 / FAULTS_EACH:
                self.lose_redis(cut=self.dice.random() < 0.5)
            if driver.operations - checked >= CHECK_EVERY:
                checked = driver.operations
                self.check()
        if not driver.violations:
            self.end()

    def drain(self) -> None:
        while self.recorder.step(None):
            pass

    def lose_redis(self, *, cut: bool) -> None:
        """SIGKILL of Redis; with `cut`, what it wrote last is lost as well, somewhere within a command."""
        if cut and self.dice.random() < 0.6:
            self.drain()  # so that the record is ahead of what is left
        self.server.kill()
        if cut:
            logs = sorted((self.server.directory / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
            size = logs[-1].stat().st_size
            os.truncate(logs[-1], max(0, size - self.dice.randint(1, 40_000)))
        self.server.start()
        self.driver.link.client.set(NOW_KEY, self.driver.now_ms)
        self.driver.is_fenced()
        self.recorder.prepare()
        self.drain()
        self.driver.counts["Redis killed, the end of its log lost" if cut else "Redis killed"] += 1
        with reading(self.engine).connect() as connection:
            record = read_record(connection)
        self.driver.counts["rebuilt"] = sum(event["t"] == "epoch.opened" and bool(event["rebuilt"]) for event in record.events)
        if cut:
            known = executions(record.events)
            # What was accepted and lost with the log was never charged; what is on record stays.
            self.driver.accepted = {key: known[key].cats for key in self.driver.accepted if key in known and known[key].charged}
        with reading(self.engine).connect() as connection:
            going = dict(connection.execute(select(t.run.c.run_id, t.run.c.status).where(t.run.c.status.in_(t.LIVE))).tuples().all())
        # An end that was lost with the log has not been; a run that nobody recorded has not been submitted.
        self.driver.runs = {name: run for name, run in self.driver.submitted.items() if name in going}
        self.driver.reconnect()
        for name, run in list(self.driver.runs.items()):
            if going[name] == "submitted":
                self.driver.start(run)

    def check(self) -> None:
        """Hold the record, the counters and what the driver was told against each other."""
        self.checks += 1
        driver = self.driver
        self.drain()
        with reading(self.engine).connect() as connection:
            record = read_record(connection)
        counted = read_counters(driver.link.client, TENANTS, record.live)
        found = executions(record.events)
        self.executions = len(found)
        wrong = disagreements(record, counted) + beyond_limits(found.values(), driver.limits)
        for key, cats in driver.accepted.items():
            if found[key].cats != cats:
                wrong.append(f"{key}: accepted {cats}, charged {found[key].cats}")
        for key, one in found.items():
            if key[0] and one.charged and one.cats not in driver.told.get(key, []):
                wrong.append(f"{key}: charged {one.cats}, which nobody said: {driver.told.get(key)}")
        driver.violations += wrong

    def end(self) -> None:
        """No more faults: every run comes to its end, and nothing is held or set aside any more."""
        driver = self.driver
        for worker in driver.workers:
            worker.state = "dead" if worker.state == "stopped" else worker.state
        for turn in range(80):
            while driver.claims:
                driver.say()
            while driver.work():
                pass
            driver.let_pass(SWEEP_MS + 1)
            driver.sweep()
            if turn % 8 == 7:
                driver.midnight()
            if turn == 60:
                for run in list(driver.runs.values()):
                    driver.call("orchestrator/state/cancel", run.id, 1, "over", "driver")
            if not driver.runs and not driver.claims:
                break
        while driver.echoes:
            driver.echo()
        self.check()
        for key in sorted(driver.link.client.scan_iter("hg1:run:*")):
            run = driver.link.client.hgetall(key)
            if run["status"] != "ended":
                driver.violations.append(f"{key} does not end: {run}")
        if driver.runs:
            states = [driver.link.read("HMGET", f"hg1:run:{run.rg}", "status", "why", "left", "reason") for run in driver.runs.values()]
            driver.violations.append(f"{len(driver.runs)} runs do not end: {list(driver.runs)[:3]} {states[:3]}")
        for tenant in TENANTS:
            row = driver.link.read("HMGET", f"hg1:tenant:{tenant}", "held", "reserved", "running")
            if any(int(value or 0) for value in row):
                driver.violations.append(f"{tenant}: every run has ended and held, reserved, running are {row}")


if __name__ == "__main__":
    print(json.dumps(play(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
