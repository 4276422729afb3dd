"""Where each artifact is: every path below the folder of artifacts is made here, and none leads out of it, whatever a name says.

A name is a part of a path as it is, but for what is neither a letter of ASCII, a digit, `_`, `-`, `@` nor a dot inside: that is written as
its bytes, `%2F`. So no name is `..` or hidden, none has a separator, and two that differ, if only in the way their accents are composed,
never have the same file.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

EXECUTION, TENANTS, REPORTS = "execution", "tenants", "reports"

PART_MAX = 200
"""Bytes of a name in a path; of a longer one the beginning and a digest."""

_ODD = re.compile(r"[^A-Za-z0-9_.@-]|^\.|^\Z")
_DIGEST = 32


def part(name: str) -> str:
    """Return a name as one part of a path."""
    written = _ODD.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass")) or "%", name)
    if len(written) <= PART_MAX:
        return written
    return f"{written[: PART_MAX - _DIGEST - 1]}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGEST]}"


def run_folder(root: Path, graph_name: str, run_id: str) -> Path:
    """Return the folder of a run: its log and what was decided about it. No graph's is one of ours, in whatever case a disk keeps names."""
    name = part(graph_name) if graph_name else "unnamed"
    if name.lower() in (EXECUTION, TENANTS, REPORTS):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return root / name / part(run_id)


def event_log(root: Path, graph_name: str, run_id: str, generation: int) -> Path:
    """Return where the log of a run's generation is: beside each other, the first without a number."""
    return run_folder(root, graph_name, run_id) / ("events.jsonl" if generation == 1 else f"events.{generation}.jsonl")


def concurrency_report(root: Path, run_id: str, generation: int) -> Path:
    """Return where the report of a run's generation is; the first has no number."""
    return root / EXECUTION / f"concurrency_report_{part(_of(run_id, generation))}.json"


def task_result(root: Path, task_id: str) -> Path:
    """Return where the result of one node is."""
    return root / EXECUTION / f"task_result_{part(task_id)}.json"


def task_results(root: Path, run_id: str, generation: int) -> Path:
    """Return where the results of a large run's generation are; the first has no number."""
    return root / EXECUTION / f"task_results_{part(_of(run_id, generation))}.jsonl"


def trace(root: Path, worker_id: str) -> Path:
    """Return where the attempts of a worker are."""
    return root / EXECUTION / f"distributed_trace_{part(worker_id)}.jsonl"


def worker_summary(root: Path, worker_id: str) -> Path:
    """Return where a worker's summary is."""
    return root / EXECUTION / f"worker_summary_{part(worker_id)}.json"


def queue_state(root: Path) -> Path:
    """Return where the snapshot of the queues is."""
    return root / EXECUTION / "queue_state.json"


def tenant_folder(root: Path, tenant: str) -> Path:
    """Return the folder of a tenant."""
    return root / TENANTS / part(tenant)


def budget_usage(root: Path, tenant: str) -> Path:
    """Return where the money of a tenant is."""
    return tenant_folder(root, tenant) / "budget_usage.json"


def cost_report(root: Path, tenant: str, period: str, kind: str = "json") -> Path:
    """Return where the report of a tenant's day (`2026-11-22`) or month (`2026-11`) is, as json or html."""
    return tenant_folder(root, tenant) / f"cost_report_{part(period)}.{kind}"


def platform_report(root: Path, period: str, kind: str = "json") -> Path:
    """Return where the report about the platform's day or month is, as json or html."""
    return root / REPORTS / f"platform_report_{part(period)}.{kind}"


def is_report(name: str) -> bool:
    """Say whether a file of this name, below the folder of artifacts, is a report about a day or month."""
    return name.startswith(("cost_report_", "platform_report_"))


def _of(run_id: str, generation: int) -> str:
    return run_id if generation == 1 else f"{run_id}.{generation}"
