"""The Tenants page and the page of one: money against limits, how fast it goes, what waits and runs, pause and resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from cost.period import day_of, name_of
from orchestrator.client import Client
from orchestrator.store import read
from orchestrator.store.decisions import list_decisions
from orchestrator.store.spend import costliest, daily_spend, refusals, spent_since, tenant_ids
from orchestrator.tenants import Usage
from orchestrator.web.acts import reason_of
from orchestrator.web.page import Act, Data, Shell
from orchestrator.web.run import decision_json
from tenancy.transport.view import TenantLoad, look

SHOWN = 25
"""Tenants on a page."""
BURN_S = 3_600
"""Seconds over which the burn rate is taken."""
DAYS = 30
TOP_DAYS = 7

TENANT = r"/tenant/([a-z0-9][a-z0-9-]{1,62})"


class TenantsPage(Shell):
    """GET /tenants."""

    title, tab, script = "Tenants", "tenants", "tenants.js"


class TenantsData(Data):
    """GET /tenants/data: tenants by id, after one and with `q` in id or name."""

    what = "tenants"

    def reading(self, *_: str) -> Callable[[], Any]:
        """Return what reads them."""
        words, after = self.text("q"), self.text("after")
        client = self.application.client

        def tell() -> dict[str, Any]:
            ids = tenant_ids(client.engine, words, after, SHOWN + 1)
            shown = ids[:SHOWN]
            return {"tenants": rows(client, shown), "after": shown[-1] if len(ids) > SHOWN else None, "now": time.time()}

        return tell


class TenantPage(Shell):
    """GET /tenant/{id}."""

    title, tab, script = "Tenant", "tenants", "tenant.js"

    async def facts(self, *path: str) -> dict[str, Any]:
        """Return the tenant's id; 404 where there is none of it."""
        found = await self.ask("tenant", read.get_tenant, self.application.engine, path[0])
        return {"title": found.name, "tenant": found.id}


class TenantData(Data):
    """GET /tenant/{id}/data: all that its page shows."""

    what = "tenant"

    def reading(self, *path: str) -> Callable[[], Any]:
        """Return what reads it."""
        client = self.application.client

        def tell() -> dict[str, Any]:
            engine, tenant, now = client.engine, path[0], time.time()
            found = read.get_tenant(engine, tenant)
            today = day_of(int(now * 1000))
            spend = daily_spend(engine, tenant, today - DAYS + 1, today)
            audit = read.audit(engine, tenant, since=now - TOP_DAYS * 86_400, limit=30)
            return {
                **rows(client, [tenant])[0],
                "version": found.version,
                "created": found.created_at,
                "policy": found.policy.acting(),
                "days": [{"day": name_of(day), "spent": spend.get(day, {})} for day in range(today - DAYS + 1, today + 1)],
                "top": [asdict(each) for each in costliest(engine, tenant, int((now - TOP_DAYS * 86_400) * 1000))],
                "decisions": [decision_json(each) for each in reversed(list_decisions(engine, tenant=tenant, limit=20))],
                "audit": [
                    {"at": line.at, "actor": line.actor, "action": line.action, "target": line.target, "reason": line.reason}
                    for line in reversed(audit)
                ],
                "now": now,
            }

        return tell


class TenantAct(Act):
    """POST /tenant/{id}/pause or resume: {reason} -> {said}."""

    what = "act on a tenant"

    def acting(self, asked: Mapping[str, Any], *path: str) -> Callable[[], Any]:
        """Return what does it."""
        tenant, verb = path
        reason, client, who = reason_of(asked), self.application.client, self.who()

        def done() -> dict[str, str]:
            if verb == "pause":
                return {"said": "paused" if client.pause(f"tenant:{tenant}", reason=reason, by=who) else "it was paused before"}
            return {"said": "resumed" if client.resume(f"tenant:{tenant}", reason=reason, by=who) else "it was not paused"}

        return done


def rows(client: Client, tenants: list[str]) -> list[dict[str, Any]]:
    """Return tenants as both pages have them: amounts in micros, times in seconds."""
    if not tenants:
        return []
    engine, link = client.engine, client.kernel.link
    now_ms = int(time.time() * 1000)
    today = day_of(now_ms)
    paused = {pause.scope: pause for pause in read.pauses(engine)}
    known = {each.id: each for each in read.tenants(engine, tenants[0] if len(tenants) == 1 else None) if each.id in tenants}
    burnt = spent_since(engine, tenants, (today - 1, today), now_ms - BURN_S * 1000)
    refused = refusals(engine, tenants, today * 86_400_000)
    one = tenants[0] if len(tenants) == 1 else None
    loads = {each.tenant: each for each in look(link, backlog_per_slot=client.settings.backlog_per_slot, tenant=one).tenants}
    found = []
    for tenant in tenants:
        view, usage, pause = known[tenant], client.tenants.usage(tenant), paused.get(f"tenant:{tenant}")
        found.append(
            {
                "id": tenant,
                "name": view.name,
                "status": view.status,
                "currency": view.currency,
                "enforcement": view.policy.enforcement,
                "levels": [view.policy.warn_percent, view.policy.critical_percent, view.policy.exceeded_percent],
                "weight": view.policy.weight,
                "paused": None if pause is None else {"by": pause.by, "reason": pause.reason, "at": pause.at},
                **money(usage, burnt.get(tenant, 0)),
                **load(loads.get(tenant)),
                "refused": refused.get(tenant, 0),
            }
        )
    return found


def money(usage: Usage, burnt: int) -> dict[str, Any]:
    """Return what a tenant uses of its limits, and how long the rest lasts at the rate of the last hour (None: it is not used up)."""
    left = usage.limit_per_day_micros - usage.settled_micros - usage.reserved_micros
    names = ("settled_micros", "reserved_micros", "held_micros", "limit_per_day_micros", "limit_per_month_micros", "month_settled_micros")
    more = (
        "month_reserved_micros",
        "level",
        "month_level",
        "running_runs",
        "max_concurrent_runs",
        "waiting_runs",
        "running_nodes",
        "rate_ppm",
    )
    return {
        **{name.removesuffix("_micros"): getattr(usage, name) for name in (*names, *more)},
        "by_category": dict(usage.by_category_micros),
        "burn_per_hour": burnt,
        "lasts_s": max(0.0, left) * BURN_S / burnt if burnt > 0 else None,
    }


def load(found: TenantLoad | None) -> dict[str, Any]:
    """Return what of a tenant waits and runs, and its share of worker time in the last minutes."""
    if found is None:
        return {"queued": 0, "in_hand": 0, "parked": 0, "delayed": 0, "oldest_s": None, "share": None, "due": None}
    oldest = [line.oldest_s for line in found.lines if line.oldest_s is not None]
    return {
        "queued": found.queued,
        "in_hand": found.running,
        "parked": found.parked,
        "delayed": found.delayed,
        "oldest_s": max(oldest, default=None),
        "share": found.share,
        "due": found.due,
    }
