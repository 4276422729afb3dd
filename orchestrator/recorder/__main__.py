"""`python -m orchestrator.recorder`: the one process that writes the record."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time

from sqlalchemy import insert, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from orchestrator.assembly import producer_app
from orchestrator.log_format import set_up
from orchestrator.log_key import log_key
from orchestrator.migrations.revisions import bring_up
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import open_engine
from tenancy.errors import HeadgateError
from tenancy.link import Link
from tenancy.policy import Policy
from tenancy.router import DEFAULT_TENANT

from .chaining import adopt, notice_another_key
from .loop import RETRY_MAX_S, RETRY_MIN_S, Recorder
from .tenants import create_tenant

log = logging.getLogger("headgate.recorder")


def first_start(engine: Engine, now_ms: int, key: bytes) -> None:
    """Make tables, cursor and the tenant `default`, as far as they are missing; chain a log that is older than its chain."""
    with engine.begin() as connection:
        added = bring_up(connection)
        if connection.execute(select(t.cursor.c.id)).first() is None:
            connection.execute(insert(t.cursor).values(id=1, epoch=0, seq=0))
        create_tenant(connection, DEFAULT_TENANT, "Default", Policy(), now_ms, actor="headgate")
        if "event.link" in added:
            adopt(connection, key, now_ms)
        notice_another_key(connection, key, now_ms)


def begin(engine: Engine, settings: Settings, stop: threading.Event) -> None:
    """Make the first start as soon as the database answers, unless told to stop before; only a server is waited for, not a file."""
    wait_s = RETRY_MIN_S
    while not stop.is_set():
        try:
            first_start(engine, time.time_ns() // 1_000_000, log_key(settings))
        except OperationalError as error:
            if engine.dialect.name == "sqlite":
                raise
            log.warning("the record is waited for, %.1f s: %s", wait_s, error.orig)
            stop.wait(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)
        else:
            return


def main() -> int:
    """Record until SIGTERM or SIGINT; return the exit code: 0, or 69 when a service or setting is missing."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = Settings.load()
        set_up(settings.log_format, "recorder")
        kernel = producer_app(settings).headgate_kernel
        link = Link(settings.resolved_client_url())
        engine = open_engine(settings.resolved_database_url(), writer=True)
        begin(engine, settings, stop)
    except HeadgateError as error:
        print(error, file=sys.stderr)  # noqa: T201 (a command says what it needs)
        return 69
    Recorder(link, engine, settings, lambda tenant, cause: kernel.call_agent("", "level", cause, tenant)).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
