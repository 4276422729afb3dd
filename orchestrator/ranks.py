"""The priority of a run in flight: of what waits in line, and of what will be put in line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import keys
from orchestrator.pauses import on_record
from orchestrator.state import ROWS_MAX
from tenancy.errors import Refused
from tenancy.priorities import Priority
from tenancy.transport.queue import Queue

if TYPE_CHECKING:
    from orchestrator.kernel import Kernel


def reprioritise(kernel: Kernel, run_id: str, generation: int, priority: Priority, reason: str, by: str) -> bool:
    """Give all of a run this priority, also nodes that had one of their own; False when it had it before.

    What is put in line from the change on has it, so a message that is put while those in line are moved is not missed.
    Raises Refused for a run that is over or not known yet, and Unavailable.
    """
    former = ""

    def rank() -> bool:
        nonlocal former
        former = kernel.state.rank(run_id, generation, int(priority), reason, by)
        return former not in ("", str(int(priority)))

    changed = on_record(kernel.link, f"the priority of run {run_id} is {priority.name}", rank)
    if former == "":
        raise Refused(f"run {run_id} is over, or nobody has asked for its admission yet; there is nothing to put in another line")
    key = f"{run_id}.{generation}"
    waiting = [f"{key}.{node}" for node in kernel.link.read("ZRANGE", keys.of_run("due", key), 0, -1)]
    queue = Queue(kernel.link)
    for first in range(0, len(waiting), ROWS_MAX):
        queue.reprioritise(int(priority), "once", waiting[first : first + ROWS_MAX])
    return changed
