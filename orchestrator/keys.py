"""Keys of run state and of the recorder; docs/protocol.md says what each holds. `rg` is `{run}.{generation}`."""

from __future__ import annotations

from typing import Literal

RUNS = "hg1:runs"
OVER = "hg1:over"
NOTICES = "hg1:notices"
FENCE = "hg1:fence"
RECORDED = "hg1:recorded"
HURRY = "hg1:hurry"
RECORDED_AT = "hg1:recorded:at"
LEASE = "hg1:recorder"
ENDED = "hg1:ended"
LOGS = "hg1:logs"
PULSE = "hg1:pulse"
BEATS = "hg1:beats"

Part = Literal[
    "run", "state", "wait", "ctl", "spec", "verdict", "attempt", "lease", "due", "result", "fault", "cascade", "fragment", "stop",
    "timeout", "decision", "adopts",
]  # fmt: skip


def of_run(part: Part, rg: str) -> str:
    """One part of a run's state: the run itself, or what each of its nodes has."""
    return f"hg1:{part}:{rg}"


def line(tenant: str) -> str:
    """The runs of a tenant that wait to be admitted, in their order."""
    return f"hg1:line:{tenant}"


def loading_of(pool: str) -> str:
    """Roots of each tenant's runs that were admitted and are not launched yet."""
    return f"hg1:loading:{pool}"


def unserved(tenant: str) -> str:
    """Those of a tenant's waiting runs that wait for a worker, beside its line."""
    return f"hg1:unserved:{tenant}"


def pressure(pool: str) -> str:
    """Whether a pool takes new runs, and how often and how long it did not."""
    return f"hg1:pressure:{pool}"


def payload(request: str) -> str:
    """The graph of a submission on its way to SQL, kept one hour."""
    return f"hg1:payload:{request}"


def reply(request: str) -> str:
    """The list with the one answer to a request, kept 60 s."""
    return f"hg1:reply:{request}"


def log(run_id: str, generation: int, node: str, attempt: int) -> str:
    """What an attempt that runs has said so far."""
    return f"hg1:log:{run_id}.{generation}:{node}:{attempt}"
