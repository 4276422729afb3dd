"""A lease that one process holds at a time; it only saves work, and nothing is wrong where two believe that they hold it."""

from __future__ import annotations

from ulid import ULID

from tenancy.link import Link

TTL_MS = 10_000
"""How long a lease outlives a holder that died."""


class Lease:
    """A lease by `name`, for `ttl_ms` at a time. Every call may raise Unavailable and Fenced."""

    def __init__(self, link: Link, name: str, ttl_ms: int = TTL_MS) -> None:
        self.link = link
        self.name = name
        self.ttl_ms = ttl_ms
        self._owner = str(ULID()).lower()

    def hold(self) -> bool:
        """Take the lease, or renew it; False while somebody else holds it."""
        return bool(self.link.call("orchestrator/schedules/lease", self.name, self._owner, self.ttl_ms))

    def give_up(self) -> None:
        """Let others have it."""
        self.link.call("orchestrator/schedules/lease", self.name, self._owner, 0)
