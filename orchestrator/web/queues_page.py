"""The Queues page: who waits in which pool, what is parked or delayed, dead letters, backpressure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from orchestrator.web.page import Data, Shell
from tenancy.transport.letters import letters
from tenancy.transport.view import look

TENANTS_SHOWN = 200
LETTERS_SHOWN = 100


class QueuesPage(Shell):
    """GET /queues."""

    title, tab, script = "Queues", "queues", "queues.js"


class QueuesData(Data):
    """GET /queues/data: the queues at this moment, of one tenant or pool where named."""

    what = "queues"

    def reading(self, *_: str) -> Callable[[], Any]:
        """Return what looks at them."""
        tenant, pool = self.text("tenant"), self.text("pool")
        link, settings = self.application.link, self.application.client.settings

        def tell() -> dict[str, Any]:
            view = look(link, backlog_per_slot=settings.backlog_per_slot, tenant=tenant, pool=pool)
            dead = letters(link) if view.letters else []
            return {
                "now": view.at,
                "paused": view.paused,
                "waiting": view.waiting,
                "pools": [asdict(each) for each in view.pools],
                "tenants": [{**asdict(each), "queued": each.queued, "running": each.running} for each in view.tenants[:TENANTS_SHOWN]],
                "left_out": max(0, len(view.tenants) - TENANTS_SHOWN),
                "dead": view.letters,
                "letters": [asdict(each) for each in dead[:LETTERS_SHOWN]],
            }

        return tell
