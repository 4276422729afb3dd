"""Ending what runs of a tenant whose level says `suspend_now`; that nothing of it starts is the queue's own work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import keys
from orchestrator.control import kill_leased
from tenancy import keys as names

if TYPE_CHECKING:
    from orchestrator.kernel import Kernel


def halt(kernel: Kernel) -> int:
    """End the processes that run nodes of halted tenants; return how many executions workers were told to end.

    Their nodes are due again and wait. Only processes of the prefork pool end; other nodes, and ordinary tasks, which would not come
    again, finish. Safe to repeat. Raises Unavailable.
    """
    halted = set(kernel.link.read("ZRANGEBYSCORE", names.HALTED, f"({kernel.link.now_ms()}", "+inf"))
    if not halted:
        return 0
    leases: dict[str, str] = {}
    for rg in kernel.link.read("ZRANGE", keys.RUNS, 0, -1):
        if kernel.link.read("HGET", keys.of_run("run", rg), "tenant") in halted:
            held = dict(kernel.link.read("HGETALL", keys.of_run("lease", rg)))
            leases |= {f"{rg}.{node}": lease for node, lease in held.items()}
    return kill_leased(kernel.app, kernel.link, leases)
