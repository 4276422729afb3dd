"""What Prometheus scrapes: /metrics, open as Flower's and without tenants, and /metrics/tenants for who is let in."""

from __future__ import annotations

import prometheus_client
from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado import web

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Metrics(BaseHandler):
    """GET /metrics: Flower's own and the platform's."""

    async def get(self) -> None:
        """Answer both, made in a thread: the loop serves others meanwhile."""
        self.application.purge_offline_worker_metrics()
        text = await self.application.blocking_runner.run("metrics", "the metrics", self._told)
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(text)

    def _told(self) -> bytes:
        own: bytes = self.application.exposition.platform.text()
        return prometheus_client.generate_latest() + own


class TenantMetrics(BaseApiHandler):
    """GET /metrics/tenants: what names tenants; 401 unless the caller is known, or the API was opened to everybody."""

    @web.authenticated
    async def get(self) -> None:
        """Answer it."""
        text = await self.run_blocking("metrics", "the metrics", self.application.exposition.tenants.text)
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(text)
