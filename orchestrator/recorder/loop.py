"""The recorder's loop: read a batch, store it with the cursor in one transaction, then tell whoever waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import redis
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from ulid import ULID

from cost.period import day_of
from orchestrator import keys
from orchestrator.artifacts.writer import ArtifactWriter
from orchestrator.log_key import log_key
from orchestrator.objects import open_objects
from orchestrator.recovery import Superseded, go_on, is_bound, recover
from orchestrator.settings import Settings
from orchestrator.store.engine import reading
from orchestrator.store.position import START
from orchestrator.store.writer import CursorMoved, read_cursor
from orchestrator.trace.exporter import TraceExporter, open_exporter
from tenancy.errors import Fenced, HeadgateError, Unavailable
from tenancy.link import Link

from .announce import announce, answer_again, ends_again, now_ms, publish_policies, refresh
from .batch import Applied, apply, payloads_of
from .prices import publish_prices
from .stream import read_after, trim

LEASE_MS = 3_000
BLOCK_MS = 1_000
LOOK_AFTER_S = 0.5
FEW = 400
LINGER_S = 0.1
PAUSE_S = 0.01
RETRY_MIN_S, RETRY_MAX_S = 0.1, 2.0

log = logging.getLogger("headgate.recorder")

_PASSING = (redis.ConnectionError, redis.TimeoutError, Unavailable, Fenced, Superseded, CursorMoved, SQLAlchemyError)
"""What waiting and preparing anew can cure; anything else ends the process with its traceback in the log."""


class Recorder:
    """Moves the log into SQL until it is told to stop.

    Everything that it applies is guarded by the cursor in SQL, so it may be killed anywhere and two may run at once; the
    lease in Redis only keeps the second one from working in vain.
    """

    def __init__(self, link: Link, engine: Engine, settings: Settings, on_level: Callable[[str, str], None] | None = None) -> None:
        """on_level: is called with a tenant that has entered a level, and what tripped it, once that is on record."""
        self.link = link
        self.engine = engine
        self.settings = settings
        self.key = log_key(settings)
        self.on_level = on_level
        self.owner = str(ULID()).lower()
        self.cursor = START
        self.artifacts = ArtifactWriter(
            engine,
            settings.resolved_artifacts_dir(),
            self.key,
            open_objects(settings.resolved_results_url()),
            clock=link.now_ms,
            kept_s=settings.artifacts_kept_s,
            on=settings.artifacts,
        )
        self.traces = _traces(engine, settings)
        self._server = ""
        self._look_after = 0.0

    def run(self, stop: threading.Event) -> None:
        """Record until `stop` is set; the batch in hand is finished, then the lease is given up."""
        wait_s = RETRY_MIN_S
        while not stop.is_set():
            try:
                if time.monotonic() >= self._look_after and not self._look_after_itself():
                    stop.wait(LEASE_MS / 6_000)
                    continue
                new = self.step(BLOCK_MS)
                wait_s = RETRY_MIN_S
                if 0 < new < FEW:
                    self._linger(stop)
            except _PASSING as error:
                log.warning("recording waits %.1f s: %s", wait_s, error)
                self._server, self._look_after = "", 0.0
                stop.wait(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
        self.leave()
        self.artifacts.close()
        if self.traces is not None:
            self.traces.close()

    def _linger(self, stop: threading.Event) -> None:
        """Wait for more to commit with: a commit costs as much CPU as 60 events, and waits for the disk.

        Whoever waits for what is in the log ends that; then too a moment passes, so that many who do share a commit.
        """
        stop.wait(PAUSE_S)
        self.link.client.blpop([keys.HURRY], LINGER_S - PAUSE_S)
        self.link.client.delete(keys.HURRY)

    def hold_lease(self) -> bool:
        """Take or renew the lease for 3 s; False while another recorder holds it."""
        return bool(self.link.call("orchestrator/recorder/lease", self.owner, LEASE_MS))

    def leave(self) -> None:
        """Give up the lease, so that a recorder that stands by goes on at once."""
        try:
            self.link.call("orchestrator/recorder/lease", self.owner, 0)
        except (redis.RedisError, Unavailable) as error:
            log.info("the lease runs out by itself: %s", error)

    def prepare(self) -> None:
        """Make SQL and Redis agree: recover where the server is a new one, publish policies, repeat the last answers."""
        server = self.link.server_id()
        recover(self.link, self.engine, self.settings, alive=self._keep_lease)
        with reading(self.engine).connect() as connection:
            self.cursor = read_cursor(connection)
            publish_prices(self.link.client, connection)
        refresh(self.link, publish_policies(self.link.client, self.engine))
        go_on(self.link, self.engine)
        answer_again(self.link.client, self.engine, self.cursor)
        ends_again(self.link.client, self.engine)
        self.artifacts.catch_up()  # with what ended just before a crash
        if self.traces is not None:
            self.traces.catch_up(now_ms(self.link.client))
        self._server = server

    def step(self, block_ms: int | None) -> int:
        """Record one batch; return how many events were new. Waits up to `block_ms` for the first, None does not wait.

        Raises CursorMoved when another recorder was faster, and whatever Redis and SQL raise when they are gone.
        """
        client = self.link.client
        entries = read_after(client, self.cursor, block_ms)
        applied = apply(self.engine, entries, payloads_of(client, entries), self.key) if entries else Applied(self.cursor)
        self.cursor = applied.cursor
        announce(client, self.engine, applied, self.link)
        if self.on_level is not None:
            for tenant, cause in applied.entered.items():
                self.on_level(tenant, cause)
        if applied.workers_ended:
            self.artifacts.workers_ended()
        self.artifacts.decided(applied.decided)
        self.artifacts.runs_ended(applied.logs)
        self.artifacts.spent(applied.spenders)
        if self.traces is not None:
            self.traces.runs_ended(applied.logs)
        return applied.events

    def _look_after_itself(self) -> bool:
        """Renew the lease, see that the epoch is this server's, trim the stream; False while another recorder holds the lease."""
        if not self.hold_lease():
            self._server = ""
            return False
        if self._server != self.link.server_id() or not is_bound(self.link):
            self.prepare()
        self.artifacts.day(day_of(self.link.now_ms()))
        client = self.link.client
        trim(client, self.cursor, now_ms(client) - int(self.settings.event_retention_s * 1000))
        self._look_after = time.monotonic() + LOOK_AFTER_S
        return True

    def _keep_lease(self) -> None:
        if not self.hold_lease():
            raise Superseded("another recorder holds the lease")


def _traces(engine: Engine, settings: Settings) -> TraceExporter | None:
    """Return what sends spans, None where nobody is to have them; that it cannot be had stops no record."""
    if settings.otlp_endpoint is None:
        return None
    try:
        return TraceExporter(engine, open_exporter(settings.otlp_endpoint))
    except HeadgateError as error:
        log.error("there will be no traces: %s", error)
        return None
