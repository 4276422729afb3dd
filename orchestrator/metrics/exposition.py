"""What a scrape answers: counters and gauges as text, made at most once a second however many ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.metrics import platform
from orchestrator.metrics.exposure import of_tenants
from orchestrator.metrics.tally import Tally
from tenancy.errors import Unavailable
from tenancy.link import Link

KEPT_S = 1.0
"""How long an answer is given again: anybody may scrape /metrics, and may not make us work more by doing so more often."""


class _Found(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Kept:
    """A text that is made when it is asked for and older than `KEPT_S`; who asks meanwhile waits for it."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._lock = Lock()
        self._made: tuple[float, bytes] | None = None

    def text(self) -> bytes:
        with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > KEPT_S:
                self._made = (time.monotonic(), self._make())
            return self._made[1]


class Exposition:
    """Both texts: `platform`, which names no tenant, and `tenants`. They block, so threads ask for them."""

    def __init__(self, link: Link, engine: Engine, tally: Tally) -> None:
        self._link, self._engine, self._tally = link, engine, tally
        self.platform = Kept(lambda: generate_latest(_Found(self._of_platform())))
        self.tenants = Kept(lambda: generate_latest(_Found(self._of_tenants())))

    def _of_platform(self) -> Iterator[Metric]:
        yield from self._tally.families()
        yield from _or_down("redis", "1 while Redis answers.", lambda: platform.of_redis(self._link))
        yield from _or_down("record", "1 while the database answers.", lambda: platform.of_record(self._engine))

    def _of_tenants(self) -> Iterator[Metric]:
        yield from self._tally.families_of_tenants()
        yield from _or_down("tenants", "1 while Redis and the database answer.", lambda: of_tenants(self._link, self._engine))


def _or_down(part: str, text: str, read: Callable[[], Iterator[Metric]]) -> list[Metric]:
    """Return what is read, and whether it could be: what is away is told by a metric, not by a scrape that fails."""
    try:
        found = list(read())
    except (Unavailable, SQLAlchemyError):
        return [platform.up(part, text, works=False)]
    return [*found, platform.up(part, text, works=True)]
