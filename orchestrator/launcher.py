"""The launcher: admits, loads and starts runs, and publishes nodes that are due."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from orchestrator import canvas, keys
from orchestrator.compiler import decode_fragment
from orchestrator.govern.at_admission import plan_down
from orchestrator.kernel import Kernel
from orchestrator.node_task import describe
from orchestrator.refusal import refusal
from orchestrator.state import ROWS_MAX
from orchestrator.store.adopted import Adopted, becoming
from orchestrator.submission import Submission
from tenancy.errors import Unavailable, Unknown


class Launcher:
    """Every step may be repeated: after a crash anywhere, whoever comes next does the same again and changes nothing twice."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def start(
        self,
        run_id: str,
        generation: int,
        tenant: str,
        submission: Submission,
        budget_micros: int | None,
        since_ms: int,
        adopted: Mapping[str, Adopted] = MappingProxyType({}),
    ) -> bool:
        """Admit a submission, load it and publish its roots; False when it waits in its tenant's line instead.

        since_ms: a time of Redis at which the run was not over; who comes so late that it may be over and forgotten by now starts
        nothing, and where it is not over, the sweeper starts it. adopted: what the submission adopts, by node.

        Raises BudgetRefused, RunsLimit or another Refused; nothing has been published then.
        """
        state = self.kernel.state
        until_ms = since_ms + int(self.kernel.settings.run_keys_kept_s * 1000)
        reply = state.admit(run_id, generation, tenant, submission.want(budget_micros), until_ms)
        if reply[0] == "stale":
            return False
        if reply[0] == "refused":
            raise refusal(tenant, submission, *reply[1:])
        if reply[0] == "held":
            if reply[2]:
                self.kernel.call_admission()
            return False
        hold = int(reply[1])
        down = hold < submission.estimate_micros
        for rows in submission.rows({}):
            state.load(run_id, generation, rows, {})
        for fragments in submission.fragments():
            state.load(run_id, generation, [], fragments)
        adoptions = [(node, *adopted[node]) for node in submission.adoption_order() if node in adopted]
        adoptions += [(node, *becoming(source)) for node, source in submission.becomes_later().items()]
        for first in range(0, len(adoptions), ROWS_MAX):
            state.adopt(run_id, generation, adoptions[first : first + ROWS_MAX])
        if adoptions:
            self.kernel.finish_cascade(run_id, generation)
        if down:
            plan_down(self.kernel, run_id, generation, tenant, submission, hold)
        roots = submission.openers()
        due: list[str] = []
        for first in range(0, len(roots), ROWS_MAX):
            last = 1 if first + ROWS_MAX >= len(roots) else 0
            due += state.launch(run_id, generation, 1 if down else 0, last, roots[first : first + ROWS_MAX])
        if down or adoptions:
            # What a skipped or adopted node alone stood in the way of is due as well.
            due = self.kernel.link.read("ZRANGE", keys.of_run("due", f"{run_id}.{generation}"), 0, -1)
        self.publish(run_id, generation, tenant, due)
        return True

    def publish(self, run_id: str, generation: int, tenant: str, nodes: Collection[str]) -> int:
        """Publish nodes that are due, each with what its fragment carries; a node whose message still exists is passed over.

        Raises Unavailable when Redis went away; the sweeper publishes what is missing.
        """
        if not nodes:
            return 0
        wanted = list(nodes)
        key = keys.of_run("fragment", f"{run_id}.{generation}")
        indexes = self.kernel.link.read("HMGET", key, *(f"of:{node}" for node in wanted))
        heads: dict[str, list[str]] = defaultdict(list)
        for node, index in zip(wanted, indexes, strict=True):
            if index is None:
                raise Unknown(f"there is no node {node!r} in run {run_id} generation {generation}")
            heads[index].append(node)
        texts = self.kernel.link.read("HMGET", key, *heads)
        signatures = [
            signature
            for (_, members), text in zip(heads.items(), texts, strict=True)
            for signature in canvas.signatures(decode_fragment(text), members, run_id, generation, tenant, self.kernel.app)
        ]
        try:
            return canvas.publish(self.kernel.app, signatures)
        except (KombuError, RedisError) as error:
            raise Unavailable(f"Redis did not take all messages of run {run_id} ({error}); the sweeper publishes what is due") from error

    def revoke_rest(self, run_id: str, generation: int, go_on: Callable[[], bool] = lambda: True) -> None:
        """Give what has not begun of a run that is cancelling, or that a failure stopped, its outcome, as long as `go_on` says so."""
        key = keys.of_run("run", f"{run_id}.{generation}")
        stopped, reason = self.kernel.link.read("HMGET", key, "stopped", "reason")
        reason = stopped or reason or "the run was cancelled"
        states: dict[str, str] = self.kernel.link.read("HGETALL", keys.of_run("state", f"{run_id}.{generation}"))
        left = [node for node, state in states.items() if state in ("pending", "due", "running")]
        for first in range(0, len(left), ROWS_MAX):
            if not go_on():
                return
            self.kernel.state.revoke(run_id, generation, "cancelled", reason, left[first : first + ROWS_MAX])

    def is_partly_loaded(self, run_id: str, generation: int) -> bool:
        """Say whether a cancelling run has nodes that state does not know yet."""
        key = f"{run_id}.{generation}"
        status, total = self.kernel.link.read("HMGET", keys.of_run("run", key), "status", "total")
        return bool(status == "cancelling" and self.kernel.link.read("HLEN", keys.of_run("state", key)) < int(total))

    def hand_back(self, node: list[Any], delivery: list[Any], task: str) -> bool:
        """Hand a message back whose task this worker lacks; True when the node failed, because for too long no worker of its pool had it.

        Raises Unavailable, and Fenced between two epochs.
        """
        run_id, generation, node_id = str(node[0]), int(node[1]), str(node[2])
        patience_ms = int(self.kernel.settings.task_wait_s * 1000)
        reply = self.kernel.state.lack(run_id, generation, node_id, str(delivery[0]), str(delivery[1]), int(delivery[2]), task, patience_ms)
        if reply[0] != "failed":
            return False
        due = set(reply[3:])
        if reply[1]:
            due |= self.kernel.finish_cascade(run_id, generation)
        tenant = self.kernel.link.read("HGET", keys.of_run("run", f"{run_id}.{generation}"), "tenant")
        self.publish(run_id, generation, tenant, due)
        return True

    def time_out(self, node: list[Any], delivery: list[Any], error: BaseException) -> bool:
        """End the execution of a node whose process was killed at its hard time limit; say whether that was its last attempt."""
        run_id, generation, node_id = str(node[0]), int(node[1]), str(node[2])
        reply = self.kernel.state.finish(run_id, generation, node_id, 0, str(delivery[0]), "timed_out", "", describe(error), "", 1000)
        if reply[0] in ("done", "stopped"):
            due = set(reply[2:])
            if reply[1]:
                due |= self.kernel.finish_cascade(run_id, generation)
            tenant = self.kernel.link.read("HGET", keys.of_run("run", f"{run_id}.{generation}"), "tenant")
            self.publish(run_id, generation, tenant, due)
        return bool(reply[0] == "done")
