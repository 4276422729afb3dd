"""Settlement of graph nodes when Celery's signals ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cost import keys as money
from cost.middleware import BY, Spent
from orchestrator import keys
from orchestrator.kernel import Kernel


class NodeSettlement:
    """What the signal middleware calls for nodes; `kernel` is asked at the first signal. Raises Unavailable."""

    def __init__(self, kernel: Callable[[], Kernel]) -> None:
        self._kernel = kernel

    @property
    def kernel(self) -> Kernel:
        """The kernel of the app."""
        return self._kernel()

    def settle(self, spent: Spent) -> None:
        """Settle what an execution said that it used: with the next command of this process, or by itself a moment later."""
        self.kernel.riders.add(spent)

    def settle_ended(self, task_id: str) -> None:
        """Settle the last execution of a node that has ended, as after a hard time limit, with what it had noted.

        Does nothing for the id of an ordinary task, for a node that runs, and for one that is settled.
        """
        run_id, _, rest = task_id.partition(".")
        generation, _, node = rest.partition(".")
        if not (generation.isdigit() and node):
            return
        rg = f"{run_id}.{generation}"
        attempt, prices = self.kernel.link.read("HMGET", keys.of_run("attempt", rg), f"{node}:done", f"{node}:prices")
        row = self.kernel.link.read("HGET", money.reservations(rg), f"{node}:{attempt}") if attempt else None
        if row is not None:
            state, _, _, _, cats, _ = str(row).split("|")[:6]
            if state == "open":
                self.kernel.settle(Spent(run_id, int(generation), node, int(attempt), cats, prices or ""), BY)

    def give_up(self, node: list[Any], delivery: list[Any]) -> None:
        """Charge the execution that a delivery of a node's message began what it had noted, when its process was killed on purpose.

        The node is due again.
        """
        run_id, generation, name = str(node[0]), int(node[1]), str(node[2])
        lease = self.kernel.link.read("HGET", keys.of_run("lease", f"{run_id}.{generation}"), name)
        if lease is not None:
            attempt, inc, tag, number, _ = str(lease).split("|")
            if [inc, tag, number] == [str(part) for part in delivery]:
                self.kernel.state.give_up(run_id, generation, name, int(attempt), inc, BY)
