"""`./dev chaos`: seeds of real processes being killed under a mix of graphs, then the checker.

Each seed runs in a process and a home of its own. Results are kept for each seed as it ends, so that a second call goes on
where the first one stopped. The exit code is 0 when every seed asked for is without a violation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.chaos import figures

SEED_TIMEOUT_S = 420


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev chaos", description="Kill real processes under a mix of graphs, and check the record.")
    parser.add_argument("--seeds", default="1..20", help="A..B, or one number (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=None, help="file for the results; seeds that are in it are skipped")
    parser.add_argument("--home", type=Path, default=None, help="directory for the homes of the seeds; those of failed seeds are kept")
    parser.add_argument("--page", type=Path, default=None, help="Markdown file to write the figures into, between its two marks")
    parser.add_argument("--small", action="store_true", help="fewer runs and faults in each seed")
    parser.add_argument("--power", action="store_true", help="Redis also loses part of its last second, as a machine without power does")
    chosen = parser.parse_args()
    first, _, last = chosen.seeds.partition("..")
    seeds = range(int(first), int(last or first) + 1)
    results = figures.read(chosen.results) if chosen.results else {}
    machine = {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
    base = chosen.home or Path(tempfile.mkdtemp(prefix="headgate-chaos-"))
    for seed in seeds:
        if seed in results:
            continue
        results[seed] = play(seed, base / f"seed-{seed}", small=chosen.small, power=chosen.power)
        print(line(results[seed]), flush=True)
        if chosen.results:
            figures.write(chosen.results, machine, results)
    print("\n" + figures.table(machine, [results[seed] for seed in seeds]))
    if chosen.page:
        figures.write_page(chosen.page, machine, results)
    broken = [seed for seed in seeds if results[seed]["violations"]]
    if not broken and chosen.home is None:
        shutil.rmtree(base, ignore_errors=True)
    for seed in broken:
        print(f"\nseed {seed}: logs, record and dump are in {base / f'seed-{seed}'}", file=sys.stderr)
        for violation in results[seed]["violations"][:20]:
            print(f"  {violation}", file=sys.stderr)
    return 1 if broken else 0


def play(seed: int, home: Path, *, small: bool = False, power: bool = False) -> figures.Result:
    """Run one seed in a process of its own and return its result; the home of one without violations is removed."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    argv = [
        sys.executable,
        "-m",
        "benchmarks.chaos.seed",
        str(seed),
        str(home),
        *(["--small"] if small else []),
        *(["--power"] if power else []),
    ]
    with (home / "seed.log").open("wb") as log:
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=log, cwd=figures.ROOT, timeout=SEED_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return _broken(seed, f"did not end within {SEED_TIMEOUT_S} s")
    said = done.stdout.decode().strip().splitlines()
    if not said:
        return _broken(seed, f"ended with code {done.returncode}: {(home / 'seed.log').read_text()[-500:]}")
    result: figures.Result = json.loads(said[-1])
    if not result["violations"]:
        shutil.rmtree(home, ignore_errors=True)
    return result


def line(result: figures.Result) -> str:
    """Return what happened in a seed in one line."""
    faults = " ".join(f"{kind}:{count}" for kind, count in sorted(result["faults"].items()))
    verdict = "ok" if not result["violations"] else f"{len(result['violations'])} VIOLATIONS"
    return (
        f"seed {result['seed']:3}  {verdict:13} {result['runs']} runs, {result['nodes']:3} nodes, {result['executions']:3} executions, "
        f"lost {result['lost']}, wasted {result['wasted']}, rebuilt {result['rebuilt']}, {result['duration_s']:5.1f} s  [{faults}]"
    )


def _broken(seed: int, why: str) -> figures.Result:
    zero = dict.fromkeys(figures.SUMS, 0)
    empty: dict[str, object] = {"faults": {}, "outcomes": {}, "recovery_ms": {}, "ended_after_faults_s": None, "duration_s": 0.0}
    return {"seed": seed, **zero, **empty, "violations": [f"harness: seed {seed}: {why}"]}


if __name__ == "__main__":
    sys.exit(main())
