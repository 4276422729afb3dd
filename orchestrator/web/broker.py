"""The Broker page: which queues there are, and how many messages wait in each."""

from __future__ import annotations

import redis
from flower.api import BaseApiHandler
from flower.views import BaseHandler
from kombu.transport.redis import Channel
from tornado import web

from orchestrator.web.queues import SHOWN_MAX, Lengths, Ordinary, ordinary_names, read_lengths
from tenancy.errors import Unavailable

UNREACHABLE = (redis.ConnectionError, redis.TimeoutError, Unavailable)
SEARCH_MAX = 100
"""Characters of a search; names of queues are shorter."""


class _Reader(BaseHandler):
    """Reads lengths in a thread of Flower's executor: its loop never waits for Redis."""

    async def lengths(self) -> Lengths:
        """Return the lengths that the request's `search` asks for. Raises HTTPError 503 when Redis does not answer."""
        search = self.get_argument("search", "", escape=False)[:SEARCH_MAX]
        return await self.application.blocking_runner.run(  # type: ignore[no-any-return]
            "queue lengths", "the broker", read_lengths, self.application.link, self._ordinary(), search, connection_errors=UNREACHABLE
        )

    def _ordinary(self) -> Ordinary:
        options = self.capp.conf.broker_transport_options
        declared = {queue.name for queue in self.capp.conf.task_queues or ()}
        names = ordinary_names({*declared, *self.get_active_queue_names()})
        return Ordinary(names, tuple(options.get("priority_steps", Channel.priority_steps)), options.get("sep", Channel.sep))


class BrokerPage(_Reader):
    """GET /broker: the page. `search` is part of the name of a queue, hence of a tenant or a level, or of a pool."""

    @web.authenticated
    async def get(self) -> None:
        """Render the lengths; without Redis the page says so."""
        found = None
        try:
            found = await self.lengths()
        except web.HTTPError as error:
            if error.status_code != 503:
                raise
            self.set_status(503)
        search = self.get_argument("search", "", escape=False)[:SEARCH_MAX]
        self.render("broker.html", broker_url=self.application.broker_uri, found=found, search=search, shown_max=SHOWN_MAX)


class QueueLengths(_Reader, BaseApiHandler):
    """GET /api/queues/length: the same as JSON, in Flower's form; `left_out` says how many queues of tenants it lacks."""

    @web.authenticated
    async def get(self) -> None:
        """Answer `active_queues`; 401 unless the API is open or the caller is known."""
        found = await self.lengths()
        rows = [{"name": each.name, "messages": each.messages, "pool": each.pool} for each in (*found.whole, *found.tenants)]
        self.write({"active_queues": rows, "left_out": found.left_out})
