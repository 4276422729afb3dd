"""`./dev stops --trials N --results FILE`: trials of cancels and pauses, in blocks, and whether anything began afterwards.

Each block runs in a process and a home of its own. Its trials are kept as it ends, so a second call goes on where the first one
stopped. The exit code is 0 when there were as many trials as asked for and no violation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EACH = 10
TRIAL_TIMEOUT_S = 120


def play(first: int, count: int, home: Path) -> list[dict[str, Any]]:
    """Run a block in a process of its own and return its trials; the home of one without violations is removed."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    argv = [sys.executable, "-m", "benchmarks.stops.block", str(first), str(count), str(home)]
    with (home / "block.log").open("wb") as log:
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, timeout=count * TRIAL_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"the block from trial {first} did not end within {count * TRIAL_TIMEOUT_S} s; its home is {home}") from None
    said = done.stdout.decode().strip().splitlines()
    if not said:
        tail = (home / "block.log").read_text()[-2000:]
        raise SystemExit(f"the block from trial {first} ended with code {done.returncode}; its home is {home}\n{tail}")
    trials: list[dict[str, Any]] = json.loads(said[-1])
    if not any(trial["violations"] for trial in trials):
        shutil.rmtree(home, ignore_errors=True)
    return trials


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all trials."""
    took = sorted(trial["acknowledged_ms"] for trial in trials if trial["stopped"])
    quantiles = {"median": int(statistics.median(took)), "p99": took[int(0.99 * (len(took) - 1))], "longest": took[-1]} if took else {}
    return {
        "trials": len(trials),
        "stopped": len(took),
        "kinds": dict(Counter(trial["kind"] for trial in trials)),
        "faults": dict(Counter(fault for trial in trials for fault in trial["faults"])),
        "outcomes": dict(Counter(str(trial["outcome"]) for trial in trials)),
        "began": sum(trial["began"] for trial in trials),
        "acknowledged_ms": quantiles,
        "violations": sum(len(trial["violations"]) for trial in trials),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev stops", description="Cancel and pause under load and restarts; nothing may begin after it."
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--each", type=int, default=EACH, help="trials of one block, on one stack (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="file for the results; trials that are in it are not played again")
    parser.add_argument("--home", type=Path, help="directory for the homes of the blocks; those of blocks with violations are kept")
    chosen = parser.parse_args()
    if chosen.trials < 1 or not 1 <= chosen.each <= 100:
        parser.error("--trials is from 1, --each from 1 to 100")
    trials = json.loads(chosen.results.read_text())["trials"] if chosen.results and chosen.results.exists() else []
    base = chosen.home or Path(tempfile.mkdtemp(prefix="headgate-stops-"))
    while (left := chosen.trials - len(trials)) > 0:
        first = 1 + max((trial["trial"] for trial in trials), default=0)
        block = play(first, min(left, chosen.each), base / f"block-{first}")
        trials += block
        for trial in block:
            print(line(trial), flush=True)
        if chosen.results:
            _write(chosen.results, trials)
    print(json.dumps(summary(trials), indent=1))
    broken = [trial for trial in trials if trial["violations"]]
    if not broken and chosen.home is None:
        shutil.rmtree(base, ignore_errors=True)
    for trial in broken:
        print(f"\ntrial {trial['trial']}: homes are in {base}", *trial["violations"][:20], sep="\n  ", file=sys.stderr)
    return 1 if broken else 0


def _write(file: Path, trials: list[dict[str, Any]]) -> None:
    """Write all results in one step, one line for each trial."""
    machine = {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
    rows = ",\n".join("  " + json.dumps(each) for each in trials)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    head = json.dumps({"machine": machine, "summary": summary(trials)})[:-1]
    fresh.write_text(f'{head},\n "trials": [\n{rows}\n]}}\n')
    fresh.replace(file)


def line(trial: dict[str, Any]) -> str:
    """Return what happened in a trial in one line."""
    verdict = "ok" if not trial["violations"] else f"{len(trial['violations'])} VIOLATIONS"
    faults = " then ".join(trial["faults"])
    return (
        f"trial {trial['trial']:4}  {verdict:13} {trial['kind']:15} {faults:18} {trial['began']:4} began, "
        f"acknowledged after {trial['acknowledged_ms']} ms, {trial['outcome']}"
    )


if __name__ == "__main__":
    sys.exit(main())
