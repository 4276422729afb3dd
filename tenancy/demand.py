"""How many slots the backlog asks for: what an autoscaler reads."""

from __future__ import annotations

from dataclasses import dataclass

from tenancy import keys
from tenancy.link import Link


@dataclass(frozen=True, slots=True)
class PoolDemand:
    """What one pool faces: live slots, messages held and in line (of tenants that are not blocked), the latter's expected work in ms."""

    pool: str
    slots: int
    running: int
    queued: int
    queued_ms: int

    def wanted(self, target_s: float) -> int:
        """Return the slots that this pool asks for.

            wanted = running + ceil(queued_ms / 1000 / target_s), at least 1 if anything waits, at most running + queued

        so that what is in line now is begun within about `target_s` seconds, and no slot is asked for that could find no message.
        """
        if self.queued <= 0:
            return self.running
        lines = -(-max(0, self.queued_ms) // max(1, int(target_s * 1000)))
        return min(max(1, self.running + lines), self.running + self.queued)


@dataclass(frozen=True, slots=True)
class Demand:
    """All pools, and the number of tenants with runs that wait to be admitted."""

    pools: tuple[PoolDemand, ...]
    waiting: int

    def wanted(self, target_s: float) -> int:
        """Return the slots asked for altogether: the sum over pools, and at least 1 while a run waits (nobody else may bring it in)."""
        return max(sum(pool.wanted(target_s) for pool in self.pools), 1 if self.waiting else 0)


def demand(link: Link) -> Demand:
    """Return what the workers face now. Raises Unavailable."""
    load, running = dict(link.read("HGETALL", keys.LOAD)), dict(link.read("HGETALL", keys.RUNNING))
    found = []
    for pool in sorted(link.read("SMEMBERS", keys.POOLS)):
        slots = sum(int(each) for each in link.read("HVALS", keys.slots(pool)))
        counts = (int(running.get(pool, 0)), int(load.get(pool, 0)), int(load.get(f"{pool}|ms", 0)))
        found.append(PoolDemand(pool, slots, *(max(0, count) for count in counts)))
    return Demand(tuple(found), int(link.read("ZCARD", keys.WAITING)))
