"""The figures: results of seeds in a file, and the page that shows them."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "chaos.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

Result = dict[str, Any]
SUMS = ("runs", "nodes", "executions", "retries", "lost", "duplicates", "wasted", "epochs", "rebuilt", "settled_by_sweeper")

_WHAT = {
    "worker": ("SIGKILL of a worker and its pool", "until a node that it ran began again"),
    "child": ("SIGKILL of one pool process", "until the node that it ran began again"),
    "freeze": ("SIGSTOP of a worker for 6 s, then SIGCONT", "until a node that it ran began again elsewhere"),
    "stall": ("SIGSTOP of recorder, beat or Redis for 1 to 4 s", ""),
    "restart": ("SIGTERM of a worker, the recorder or beat", ""),
    "redis": ("SIGKILL of Redis", "until the next epoch was open, or a node lost to it began again"),
    "power": ("Redis loses part of its last second and is killed", "until the next epoch was open, or a node lost to it began again"),
    "recorder": ("SIGKILL of the recorder", "until the next one held the lease"),
    "beat": ("SIGKILL of beat", ""),
    "cancel": ("cancellation of a run by its producer", ""),
    "cancel nodes": ("cancellation of nodes of a run, or of a subgraph", ""),
    "pause": ("pause of a run, a tenant or everything, for up to 2 s", ""),
    "died at a point": ("death at a named point: before or after a script, a publish, a commit", "until a node that it ran began again"),
    "point": ("named points armed", ""),
    "rerun": ("rerun of a run that had not succeeded, while a worker is killed", ""),
}


def read(file: Path) -> dict[int, Result]:
    """Return the results in `file` by seed; none where there is no file."""
    if not file.exists():
        return {}
    return {int(result["seed"]): result for result in json.loads(file.read_text())["seeds"]}


def write(file: Path, machine: Mapping[str, Any], results: Mapping[int, Result]) -> None:
    """Write all results, one line for each seed, in one step."""
    lines = ",\n".join("  " + json.dumps(results[seed]) for seed in sorted(results))
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(f'{{"machine": {json.dumps(machine)},\n "seeds": [\n{lines}\n]}}\n')
    fresh.replace(file)


def table(machine: Mapping[str, Any], results: Sequence[Result]) -> str:
    """Return the figures as Markdown."""
    sums = {name: sum(int(result[name]) for result in results) for name in SUMS}
    faults = _merge(result["faults"] for result in results)
    outcomes = _merge(result["outcomes"] for result in results)
    green = sum(not result["violations"] for result in results)
    times: dict[str, list[int]] = {}
    for result in results:
        for kind, found in result["recovery_ms"].items():
            times.setdefault(kind, []).extend(found)
    after = [result["ended_after_faults_s"] for result in results if result["ended_after_faults_s"] is not None]
    where = f"{machine['cores']} cores ({machine['system']}, Python {machine['python']})"
    broken = "0" if green == len(results) else "see the results file"
    lines = [
        f"{len(results)} seeds, {green} without a violation, on {where}.",
        "",
        "| figure | value |",
        "|---|---:|",
        f"| runs | {sums['runs']} ({', '.join(f'{count} {name}' for name, count in sorted(outcomes.items()))}) |",
        f"| nodes | {sums['nodes']} |",
        f"| executions | {sums['executions']} |",
        f"| faults | {sum(faults.values())} |",
        f"| executions lost to a fault, and repeated where the run went on | {sums['lost']} |",
        f"| second deliveries turned away at the gate while the first one ran | {sums['duplicates']} |",
        f"| executions that ended after they had been given up: fenced, their cost booked as waste | {sums['wasted']} |",
        f"| settlements made by the sweeper | {sums['settled_by_sweeper']} |",
        f"| epochs opened, the first of each seed included | {sums['epochs']} |",
        f"| of these with execution state rebuilt from SQL | {sums['rebuilt']} |",
        f"| nodes with two outcomes, executions charged twice, joins run twice | {broken} |",
        f"| seconds from the last fault to the end of the last run: median, longest | {statistics.median(after):.1f}, {max(after):.1f} |",
        "",
        "| fault | times | time to recover: median, 90 %, longest (ms) | measured |",
        "|---|---:|---:|---|",
    ]
    for kind, (what, measured) in _WHAT.items():
        if kind not in faults:
            continue
        found = sorted(times.get(kind, []))
        shown = f"{statistics.median(found):.0f}, {found[int(0.9 * (len(found) - 1))]}, {found[-1]}" if found else ""
        lines.append(f"| {what} | {faults.get(kind, 0)} | {shown} | {f'{measured} ({len(found)} times)' if found else ''} |")
    return "\n".join(lines)


def write_page(page: Path, machine: Mapping[str, Any], results: Mapping[int, Result]) -> None:
    """Put the figures between the two marks of `page`; the text around them is written by hand."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table(machine, [results[seed] for seed in sorted(results)])}\n{END}{after}")


def _merge(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total
