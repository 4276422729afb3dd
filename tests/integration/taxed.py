"""Somebody's worker whose tasks have budgets, as tests hold it: it runs, messages are sent, and its money is looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from running import until

from cost.task_ledger import ATTEMPTS_PER_HOUR
from orchestrator.embedded import RedisServer
from tenancy.link import Link

HERE = Path(__file__).parent
LOG = "test:signals"


@dataclass(frozen=True)
class Sent:
    """A message that was sent. Not Celery's AsyncResult, which complains when it outlives its Redis."""

    id: str
    producer: Any

    @property
    def state(self) -> str:
        return str(self._meta()["status"])

    @property
    def result(self) -> Any:
        return self._meta()["result"]

    def get(self, timeout: float = 20) -> Any:
        until(lambda: self.state in ("SUCCESS", "FAILURE", "REVOKED"), timeout)
        assert self.state == "SUCCESS", self.result
        return self.result

    def _meta(self) -> Any:
        return self.producer.backend.get_task_meta(self.id, cache=False)


class Taxed:
    """A Redis with two tenants, as a recorder leaves it, and a producer of somebody's tasks."""

    def __init__(self, server: RedisServer, fair: bool = False) -> None:
        self.server, self.fair = server, fair
        self.link = Link(server.client_url)
        self.money = self.link.client
        self.seen = redis.Redis(unix_socket_path=str(server.socket), db=1, decode_responses=True)
        self.money.hset("hg1:epoch", mapping={"epoch": 1, "server": self.link.server_id(), "seq": 0})
        for tenant in ("acme", "beta"):
            self.fund(tenant, 1_000_000)
        self.producer = Celery("sender", set_as_current=False)
        url = f"redis+socket://{server.socket}?virtual_host={0 if fair else 2}"
        results = f"celery.backends.redis:RedisBackend+socket://{server.socket}?virtual_host=3"
        self.producer.conf.update(broker_url=url, result_backend=results, task_default_priority=5)
        if fair:
            from tenancy.router import route
            from tenancy.transport import channel

            channel.install()
            self.producer.conf.task_routes = (route,)

    @staticmethod
    def bare() -> Celery:
        """An app of nobody's."""
        return Celery("bare", set_as_current=False)

    def fund(self, tenant: str, limit: int, status: str = "active") -> None:
        self.money.hset(f"hg1:tenant:{tenant}", mapping={"limit_day": limit, "max_runs": 10, "status": status, "version": 1})

    def send(self, name: str, *args: Any, tenant: str | None = "acme", headers: dict[str, Any] | None = None, **options: Any) -> Sent:
        given = {**({"tenant": tenant} if tenant else {}), **(headers or {})}
        if not self.fair:
            options.setdefault("queue", "theirs")
        options.setdefault("task_id", str(uuid.uuid4()))
        self.producer.send_task(name, args, headers=given, **options)
        return Sent(options["task_id"], self.producer)

    def signals(self, task_id: str) -> list[tuple[str, str]]:
        """(signal, side) in the order in which they were written down."""
        rows = [json.loads(row) for row in self.seen.lrange(LOG, 0, -1)]
        return [(row["signal"], row["side"]) for row in rows if row["id"] == task_id]

    def told(self, task_id: str, kind: str) -> list[dict[str, Any]]:
        rows = [json.loads(row) for row in self.seen.lrange(LOG, 0, -1)]
        return [row for row in rows if row["id"] == task_id and row["signal"] == kind]

    def events(self, task_id: str) -> list[dict[str, Any]]:
        """The money events of a task."""
        every = [json.loads(entry["e"]) for _, entry in self.money.xrange("hg1:events")]
        return [event for event in every if event.get("run") == f"task.{task_id}"]

    def closed(self, task_id: str, count: int = 1) -> list[tuple[str, int, int, str]]:
        """What became of each execution, once `count` of them are closed: kind, attempt, llm micros, by."""

        def found() -> list[tuple[str, int, int, str]]:
            rows = []
            for event in self.events(task_id):
                if event["t"] == "money.settled":
                    rows.append(
                        (event["kind"], event["attempt"] % ATTEMPTS_PER_HOUR, int(dict(event["cats"] or {}).get("llm", 0)), event["by"])
                    )
                if event["t"] == "money.voided":
                    rows.append(("void", event["attempt"] % ATTEMPTS_PER_HOUR, 0, event["by"]))
            return rows

        until(lambda: len(found()) >= count)
        return found()

    def state(self, task_id: str) -> list[tuple[int, str]]:
        """Executions of a task and the state of their money."""
        rows = self.money.hgetall(f"hg1:res:task.{task_id}.0")
        return sorted((int(name.rsplit(":", 1)[1]) % ATTEMPTS_PER_HOUR, row.split("|")[0]) for name, row in rows.items())

    def spent(self, tenant: str = "acme") -> dict[str, int]:
        """What is settled and reserved of a tenant today, and in waste."""
        days = list(self.money.scan_iter(f"hg1:spent:{tenant}:[0-9]*"))
        row = self.money.hgetall(days[0]) if days else {}
        return {name: int(row.get(name, 0)) for name in ("settled", "reserved", "waste")}

    def lingering(self) -> int:
        """The process of the next task that lingers."""
        found = self.seen.blpop(["test:lingering"], 20)
        assert found, "no task lingers"
        return int(found[1])

    def close(self) -> None:
        self.link.close()
        self.seen.close()
        self.producer.close()


@contextmanager
def worker(taxed: Taxed, log: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of `taxed_app`, ready when it is given out."""
    given = {"BUDGET_TEST_SOCKET": str(taxed.server.socket), "BUDGET_TEST_PARENT": str(os.getpid()), **environment}
    if taxed.fair:
        given["BUDGET_TEST_FAIR"] = "1"
    paths = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    command = [sys.executable, "-m", "celery", "-A", "taxed_app", "worker", "-c", "2", "--without-gossip", "--without-mingle", "-l", "INFO"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *options],
            env={**os.environ, **given, "PYTHONPATH": paths},
            stdout=out,
            stderr=out,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        until(lambda: process.poll() is not None or " ready." in log.read_text(), 30)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], *, at_once: bool = False) -> None:
    """End a worker and its pool."""
    if process.poll() is None and not at_once:
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
