"""Tenants as an operator handles them: every change is on record, and holds everywhere, when its call returns."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cost import keys as money
from cost.levels import rate_ppm, read_level
from cost.money import CATEGORIES
from cost.period import month_of, name_of
from orchestrator import keys
from orchestrator.awaiting import awaitable
from orchestrator.recorder.ask import Kind, ask
from orchestrator.store import read
from tenancy import keys as names
from tenancy.errors import Conflict, Refused, Unknown
from tenancy.priorities import Priority

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestrator.client import Client
    from tenancy.link import Link

SECONDS_PER_DAY = 86_400

Changed = dict[str, tuple[Any, Any]]
"""Field to what it was and what it is."""


@dataclass(frozen=True)
class Usage:
    """What a tenant uses at this moment; amounts in micros, of the `day` (UTC) that it is in Redis.

    settled: charged today, waste included. reserved: set aside for executions that run. held: set aside for runs beyond that.
    level: HEALTHY, WARNING, CRITICAL or EXCEEDED, entered for the `entry`-th time today (0: HEALTHY); month_level, month_entry: of the
    month, None without a limit of the month, as limit_per_month; month_settled, month_reserved: of the month, whether or not it has one.
    rate_ppm: millionths of the day's limit that are settled or reserved.
    """

    tenant: str
    day: str
    limit_per_day_micros: int
    settled_micros: int
    reserved_micros: int
    held_micros: int
    by_category_micros: Mapping[str, int]
    running_runs: int
    max_concurrent_runs: int
    waiting_runs: int
    running_nodes: int
    max_running_nodes: int | None
    level: str
    entry: int
    rate_ppm: int
    month_level: str | None = None
    month_entry: int | None = None
    limit_per_month_micros: int | None = None
    month_settled_micros: int = 0
    month_reserved_micros: int = 0

    @property
    def exposure_micros(self) -> int:
        """What admission compares with the limit."""
        return self.settled_micros + self.reserved_micros + self.held_micros


class Tenants:
    """The tenants of a client's platform.

    Ids are 2 to 63 of a-z, 0-9 and -, not beginning with -. One that is malformed or nobody's is refused with the same sentence: Unknown.
    Every call may raise Unavailable; a change that was asked for may then have been made, and asking again is safe.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def _link(self) -> Link:
        return self._client.kernel.link

    @property
    def _engine(self) -> Engine:
        return self._client.engine

    def create(self, /, tenant: str, *, name: str | None = None, reason: str = "", by: str | None = None, **policy: Any) -> read.TenantView:
        """Create a tenant and return it; `policy` are fields of its policy, such as limit_per_day_micros.

        Raises Conflict when it exists, Refused when its id or a field does not fit.
        """
        return self._make(tenant, "", name, reason, by, policy)

    def fork(
        self, /, source: str, target: str, *, name: str | None = None, reason: str = "", by: str | None = None, **changes: Any
    ) -> read.TenantView:
        """Create the tenant `target` with the policy of `source`, but for `changes`; the permission to fork is not passed on.

        Raises Unknown unless there is a `source` whose policy has can_fork, Conflict when `target` exists, Refused when a field does
        not fit.
        """
        return self._make(target, source, name, reason, by, changes)

    def get(self, tenant: str) -> read.TenantView:
        """Return a tenant with the policy that holds. Raises Unknown."""
        return read.get_tenant(self._engine, tenant)

    def list(self) -> tuple[read.TenantView, ...]:
        """Return all tenants, by id."""
        return tuple(read.tenants(self._engine))

    def history(self, tenant: str) -> tuple[read.AuditView, ...]:
        """Return what was done to a tenant, oldest first. Raises Unknown."""
        self.get(tenant)
        return tuple(read.audit(self._engine, tenant))

    def update(self, /, tenant: str, *, reason: str = "", by: str | None = None, version: int | None = None, **changes: Any) -> Changed:
        """Change fields of a policy, None clearing those that may be empty; return what changed, nothing where nothing differed.

        version: the version that the change was made for. Raises Conflict when another one holds by now, Unknown, and Refused when a
        field does not fit.
        """
        fields = {"changes": changes, "reason": reason, "by": by or getpass.getuser(), "version": version}
        answer = self._ask("request.policy", tenant, fields)
        if answer["status"] == "conflict":
            raise Conflict(f"the policy of tenant {tenant!r} has version {answer['version']} by now, not {version}; look at it again")
        return _changed(answer)

    def suspend(self, tenant: str, *, reason: str = "", by: str | None = None) -> bool:
        """Let no new run of a tenant in, and nothing of it begin; what runs goes on. False when it was so. Raises Unknown, Refused."""
        return self._become(tenant, "suspended", reason, by)

    def resume(self, tenant: str, *, reason: str = "", by: str | None = None) -> bool:
        """End a tenant's suspension. False when it was active. Raises Unknown, and Refused when it is closed."""
        return self._become(tenant, "active", reason, by)

    def close(self, tenant: str, *, reason: str = "", by: str | None = None) -> bool:
        """Let no new run of a tenant in, for good; live ones finish. False when it was so. Raises Unknown, and Refused for `default`."""
        return self._become(tenant, "closed", reason, by)

    def usage(self, tenant: str) -> Usage:
        """Return what a tenant uses now: today's money, its runs and nodes. Raises Unknown."""
        found = self.get(tenant)
        day = int(self._link.read("TIME")[0]) // SECONDS_PER_DAY
        spent_today, (held, running), levels, of_this_month, running_nodes, *waiting = self._link.read_at_once(
            ("HMGET", money.spent(tenant, day), *_SPENT),
            ("HMGET", money.tenant(tenant), "held", "running"),
            ("HMGET", money.level(tenant), "day", "month"),
            ("HMGET", money.spent_in_month(tenant, month_of(day)), "settled", "reserved"),
            ("SCARD", names.held(f"tenant:{tenant}")),
            *(("ZCARD", key(tenant)) for key in (keys.line, keys.unserved)),
        )
        spent = dict(zip(_SPENT, spent_today, strict=True))
        level = read_level(levels[0], name_of(day))
        of_month = None if found.policy.limit_per_month_micros is None else read_level(levels[1], name_of(day)[:7])
        by_category = {category: int(spent[f"c:{category}"] or 0) for category in CATEGORIES}
        return Usage(
            tenant=tenant,
            day=name_of(day),
            limit_per_day_micros=found.policy.limit_per_day_micros,
            settled_micros=int(spent["settled"] or 0),
            reserved_micros=int(spent["reserved"] or 0),
            held_micros=int(held or 0),
            by_category_micros={category: micros for category, micros in by_category.items() if micros},
            running_runs=int(running or 0),
            max_concurrent_runs=found.policy.max_concurrent_runs,
            waiting_runs=sum(map(int, waiting)),
            running_nodes=int(running_nodes),
            max_running_nodes=found.policy.max_running_nodes,
            level=level.name,
            entry=level.entry,
            rate_ppm=rate_ppm(int(spent["settled"] or 0) + int(spent["reserved"] or 0), found.policy.limit_per_day_micros),
            month_level=None if of_month is None else of_month.name,
            month_entry=None if of_month is None else of_month.entry,
            limit_per_month_micros=found.policy.limit_per_month_micros,
            month_settled_micros=int(of_this_month[0] or 0),
            month_reserved_micros=int(of_this_month[1] or 0),
        )

    def default_priority(self, tenant: str) -> Priority:
        """Return the priority of a tenant's runs that do not say theirs; NORMAL for a tenant that there is not."""
        return Priority.parse(self._link.read("HGET", money.tenant(tenant), "default_priority"))

    def is_strict(self, tenant: str) -> bool:
        """Say whether a tenant's nodes are counted at their `max_cost`; False for a tenant that there is not."""
        return bool(self._link.read("HGET", money.tenant(tenant), "strict") == "1")

    # -- the same for asyncio: one implementation, in threads -------------------------------------

    acreate = awaitable(create)
    afork = awaitable(fork)
    aget = awaitable(get)
    alist = awaitable(list)  # noqa: A003 (the method is meant)
    ahistory = awaitable(history)
    aupdate = awaitable(update)
    asuspend = awaitable(suspend)
    aresume = awaitable(resume)
    aclose = awaitable(close)
    ausage = awaitable(usage)
    adefault_priority = awaitable(default_priority)
    ais_strict = awaitable(is_strict)

    # -- requests to the recorder ---------------------------------------------------------------

    def _make(self, tenant: str, like: str, name: str | None, reason: str, by: str | None, policy: Mapping[str, Any]) -> read.TenantView:
        fields = {"name": name or tenant, "policy": policy, "reason": reason, "by": by or getpass.getuser(), "like": like}
        answer = ask(self._link, "request.tenant", {"tenant": tenant, **fields})
        if answer["status"] == "duplicate":
            raise Conflict(f"there is a tenant {tenant!r} already")
        if answer["status"] == "unknown_tenant":
            raise Unknown(f"there is no tenant {like!r} whose policy may be forked")
        if answer["status"] != "accepted":
            raise Refused(f"the tenant {tenant!r} was not created: {answer.get('reason') or answer['status']}")
        return self.get(tenant)

    def _become(self, tenant: str, status: Literal["active", "suspended", "closed"], reason: str, by: str | None) -> bool:
        fields = {"status": status, "reason": reason, "by": by or getpass.getuser()}
        answer = self._ask("request.status", tenant, fields)
        if answer["status"] == "closed":
            raise Refused(f"tenant {tenant!r} is closed, which is final")
        return bool(_changed(answer))

    def _ask(self, kind: Kind, tenant: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        answer = ask(self._link, kind, {"tenant": tenant, **fields})
        if answer["status"] == "unknown_tenant":
            raise Unknown(f"there is no tenant {tenant!r}")
        if answer["status"] == "invalid":
            raise Refused(f"tenant {tenant!r} stays as it is: {answer['reason']}")
        return answer


_SPENT = ("settled", "reserved", *(f"c:{category}" for category in CATEGORIES))


def _changed(answer: Mapping[str, Any]) -> Changed:
    return {field: (old, new) for field, (old, new) in (answer.get("changed") or {}).items()}
