"""Ending what runs of a tenant whose level says `suspend_now`; that nothing of it starts is the queue's own work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator import keys
from orchestrator.control import kill
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
    by_worker: dict[str, list[list[str]]] = {}
    for rg in kernel.link.read("ZRANGE", keys.RUNS, 0, -1):
        if kernel.link.read("HGET", keys.of_run("run", rg), "tenant") not in halted:
            continue
        for node, lease in dict(kernel.link.read("HGETALL", keys.of_run("lease", rg))).items():
            _, inc, tag, delivery, _ = lease.split("|")
            info = kernel.link.read("HGET", names.worker(inc), "info")
            if info is not None:
                by_worker.setdefault(str(json.loads(info)["name"]), []).append([f"{rg}.{node}", inc, tag, delivery])
    return sum(kill(kernel.app, worker, executions) for worker, executions in by_worker.items())
