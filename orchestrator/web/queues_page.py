"""The Queues page: who waits in which pool, what is parked or delayed, backpressure, dead letters and what is done to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

from orchestrator.letters import act
from orchestrator.web.acts import reason_of
from orchestrator.web.page import Act, Data, Shell
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


class LettersAct(Act):
    """POST /queues/requeue or discard: {tags: [tag, ..], reason} -> {said}."""

    what = "act on dead letters"

    def acting(self, asked: Mapping[str, Any], *path: str) -> Callable[[], Any]:
        """Return what does it; a tag that no letter has any more keeps all from it."""
        tags = asked.get("tags")
        if not isinstance(tags, list) or not 0 < len(tags) <= LETTERS_SHOWN or not all(isinstance(tag, str) for tag in tags):
            raise ValueError(f"name 1 to {LETTERS_SHOWN} dead letters by their tags")
        what: Literal["requeue", "discard"] = "requeue" if path[0] == "requeue" else "discard"
        reason, link, who = reason_of(asked), self.application.link, self.who()

        def done() -> dict[str, str]:
            acted = act(link, what, tags, by=who, reason=reason)
            said = f"{acted.moved} {'is' if acted.moved == 1 else 'are'} {'back in line' if what == 'requeue' else 'forgotten'}"
            stay = f"; {len(acted.left)} stay: their nodes have failed with them" if acted.left else ""
            return {"said": said + stay}

        return done
