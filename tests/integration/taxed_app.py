"""Somebody's Celery app with budgets, for the tests of signals: stock transport, or the fair one where BUDGET_TEST_FAIR is set.

Each process writes the signals that it is sent, and each task what it did, into a list in Redis.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import redis
from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject
from celery.worker.request import Request
from kombu import Queue

from cost import middleware
from cost.install import install
from cost.task_ledger import TaskLedger
from orchestrator import BudgetRefused, meter

SOCKET = os.environ["BUDGET_TEST_SOCKET"]
FAIR = bool(os.environ.get("BUDGET_TEST_FAIR"))
LOG = "test:signals"
seen = redis.Redis(unix_socket_path=SOCKET, db=1, decode_responses=True)

app = Celery("taxed_app")
app.conf.update(
    broker_url=f"redis+socket://{SOCKET}?virtual_host={0 if FAIR else 2}",
    result_backend=f"celery.backends.redis:RedisBackend+socket://{SOCKET}?virtual_host=3",
    task_acks_late=True,
    task_queues=[Queue("pool.default" if FAIR else "theirs")],
    task_default_queue="pool.default" if FAIR else "theirs",
    task_default_priority=5,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 3600, "incarnation_ttl_s": 2},
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
if FAIR:
    from tenancy.router import route
    from tenancy.transport import channel

    channel.install()
    app.conf.task_routes = (route,)

ledger = TaskLedger(
    lambda: f"unix://{os.environ.get('BUDGET_TEST_MONEY', SOCKET)}?db=0", silent_s=float(os.environ.get("BUDGET_TEST_SILENT", 3600))
)
install(app, ledger, estimates={"t.dear": 5_000})


if os.environ.get("BUDGET_TEST_DEAF"):
    middleware.disconnect()


def write(kind: str, task_id: str, **fields: Any) -> None:
    side = "main" if os.getppid() == int(os.environ["BUDGET_TEST_PARENT"]) else "child"
    seen.rpush(LOG, json.dumps({"signal": kind, "id": task_id, "side": side, **fields}))


def listen() -> None:
    """Write down each signal after the middleware has had it."""

    def receiver(kind: str) -> Any:
        def on_signal(sender: Any = None, task_id: str = "", request: Any = None, **fields: Any) -> None:
            found = task_id or getattr(request, "id", None) or sender.request.id
            told = {name: fields[name] for name in ("state", "terminated", "expired") if name in fields}
            if "exception" in fields:
                told["exception"] = type(fields["exception"]).__name__
            write(kind, found, **told)

        return on_signal

    for kind in ("task_prerun", "task_success", "task_failure", "task_retry", "task_postrun", "task_revoked"):
        getattr(signals, kind).connect(receiver(kind), weak=False, dispatch_uid=f"test-{kind}")

    def on_publish(headers: Any = None, **_: Any) -> None:
        write("before_task_publish", headers["id"])

    signals.before_task_publish.connect(on_publish, weak=False, dispatch_uid="test-publish")


listen()


@app.task(name="t.spend")
def spend(micros: int = 700) -> int:
    meter.charge("llm", micros, "micros")
    return micros


@app.task(name="t.greedy")
def greedy(micros: int) -> str:
    try:
        meter.charge("llm", micros, "micros")
    except BudgetRefused as refused:
        return f"stopped at {refused.limit}"
    return "went on"


@app.task(name="t.dear")
def dear() -> str:
    return "dear"


@app.task(name="t.fail")
def fail() -> None:
    meter.charge("llm", 300, "micros")
    raise ValueError("no")


@app.task(name="t.again", bind=True, max_retries=1)
def again(self: Any) -> str:
    meter.charge("llm", 100, "micros")
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return f"attempt {meter.attempt}"


@app.task(name="t.ignored")
def ignored() -> None:
    meter.charge("llm", 50, "micros")
    raise Ignore


@app.task(name="t.rejected")
def rejected() -> None:
    meter.charge("llm", 60, "micros")
    raise Reject("no", requeue=False)


def linger(note: int) -> None:
    if note:
        meter.charge("llm", note, "micros")
    seen.rpush("test:lingering", os.getpid())
    time.sleep(60)


@app.task(name="t.linger")
def lingering(note: int = 40) -> None:
    linger(note)


@app.task(name="t.limited", time_limit=1)
def limited(note: int = 40) -> None:
    linger(note)


@app.task(name="t.dies")
def dies() -> None:
    meter.charge("llm", 20, "micros")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="t.dies_once", reject_on_worker_lost=True)
def dies_once() -> str:
    meter.charge("llm", 20, "micros")
    if seen.incr("test:dies_once") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"attempt {meter.attempt}"


@app.task(name="t.exits")
def exits() -> None:
    meter.charge("llm", 30, "micros")
    sys.exit(3)


class Theirs(Task):
    """A base class that is not the app's."""

    Request = "taxed_app:TheirRequest"


class TheirRequest(Request):
    """A request class of their own."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        seen.rpush("test:accepted", self.id)
        super().on_accepted(pid, time_accepted)


@app.task(name="t.theirs", base=Theirs)
def theirs() -> str:
    meter.charge("llm", 10, "micros")
    return "theirs"
