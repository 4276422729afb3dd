"""A run that waits to be admitted, in words: for what, since when, and what would help."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.cli.output import at

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.store.read import RunView

WHY = {
    "runs": "its tenant has as many runs as it may (max_concurrent_runs)",
    "budget": "its tenant's money for the day is taken (limit_per_day_micros)",
    "backpressure": "the workers of its pools have enough to do",
    "worker": "no live worker serves its pool",
}


def standing(run: RunView) -> str:
    """Return how a run stands in a word or two: its outcome, or its status, with the reason why it is held."""
    return run.outcome or (f"held ({run.reason})" if run.status == "held" and run.reason else run.status)


def held(client: Client, run: RunView, reason: str) -> str:
    """Return one sentence that says why a held run waits; `reason` as `RunHandle.held` has it."""
    why = WHY.get(reason, "others of its tenant wait before it")
    if reason == "worker" and (missing := _missing(client, run)):
        modules = ",".join(sorted({name.rsplit(".", 1)[0] for name in missing}))
        why = (
            f"no live worker serves {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}; "
            f"start one with `headgate up --tasks {modules}` or `celery -A orchestrator.app worker` and HEADGATE_TASKS={modules}"
        )
        stack = client.settings.stack()
        if stack is not None and client.settings.redis_url is None:
            home, pid = client.settings.home, stack["pids"]["stack"]
            why += f" (the stack that runs in {home} was started without them: stop it first, its pid is {pid})"
    return f"run {run.run_id} is held since {at(run.submitted_at)}: {why}"


def _missing(client: Client, run: RunView) -> list[str]:
    """The tasks of a run that nobody serves at this moment."""
    from orchestrator.graph import Graph
    from orchestrator.store import read
    from tenancy import keys

    spec = read.get_graph(client.engine, run.run_id, run.generation)
    served = set(client.kernel.link.read("HKEYS", keys.SERVES))
    return [] if spec is None else sorted(Graph.model_validate(json.loads(spec)).tasks() - served)
