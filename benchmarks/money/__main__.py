"""`./dev money --operations N --results FILE`: random operations on money with faults, in blocks, and what the books say to it.

Each block has a process, a Redis and a record of its own, and a seed: `--only BLOCK` plays one again. Its result is kept as it ends, so a
second call goes on where the first one stopped. The exit code is 0 when there were as many operations as asked for and no violation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import commit

ROOT = Path(__file__).resolve().parents[2]
EACH = 5_000
BLOCK_TIMEOUT_S = 900


def play(seed: int, number: int, operations: int) -> dict[str, Any]:
    """Play a block in a process of its own and return its result."""
    argv = [sys.executable, "-m", "benchmarks.money.block", str(seed), str(number), str(operations)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=BLOCK_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return _broken(seed, number, f"did not end within {BLOCK_TIMEOUT_S} s")
    said = done.stdout.strip().splitlines()
    if done.returncode or not said:
        return _broken(seed, number, f"ended with code {done.returncode}: {done.stderr[-800:]}")
    result: dict[str, Any] = json.loads(said[-1])
    return result


def _broken(seed: int, number: int, why: str) -> dict[str, Any]:
    return {"seed": seed, "block": number, "operations": 0, "executions": 0, "counts": {}, "checks": 0, "violations": [f"harness: {why}"]}


def summary(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all blocks."""
    counts: Counter[str] = Counter()
    for each in blocks:
        counts.update(each["counts"])
    sums = {name: sum(each[name] for each in blocks) for name in ("operations", "executions", "checks")}
    return {**sums, "violations": sum(len(each["violations"]) for each in blocks), "counts": dict(sorted(counts.items()))}


def write(file: Path, blocks: list[dict[str, Any]]) -> None:
    """Write all results in one step, one line for each block."""
    machine = {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
    rows = ",\n".join("  " + json.dumps(each) for each in sorted(blocks, key=lambda each: each["block"]))
    head = json.dumps({"commit": commit(), "machine": machine, "summary": summary(blocks)})[:-1]
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(f'{head},\n "blocks": [\n{rows}\n]}}\n')
    fresh.replace(file)


def line(block: dict[str, Any]) -> str:
    """Return what happened in a block in one line."""
    verdict = "ok" if not block["violations"] else f"{len(block['violations'])} VIOLATIONS"
    counts = block["counts"]
    told = f"{block['executions']} executions, {counts.get('midnights', 0)} midnights, {counts.get('rebuilt', 0)} rebuilds"
    return f"block {block['block']:4}  {verdict:13} {block['operations']} operations, {told}, {block.get('seconds', 0)} s"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev money", description="Random operations on money with faults, and what the books say to it."
    )
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--each", type=int, default=EACH, help="operations of one block (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="blocks that are played at once (default: %(default)s)")
    parser.add_argument("--only", type=int, metavar="BLOCK", help="play this block, and print its result")
    parser.add_argument("--results", type=Path, help="file for the results; blocks that are in it are not played again")
    chosen = parser.parse_args()
    if chosen.operations < 1 or not 100 <= chosen.each <= 100_000 or not 1 <= chosen.jobs <= 64:
        parser.error("--operations is from 1, --each from 100 to 100000, --jobs from 1 to 64")
    if chosen.only is not None:
        result = play(chosen.seed, chosen.only, chosen.each)
        print(json.dumps(result, indent=1))
        return 1 if result["violations"] else 0
    blocks = json.loads(chosen.results.read_text())["blocks"] if chosen.results and chosen.results.exists() else []
    done = {each["block"] for each in blocks}
    wanted = -(-max(0, chosen.operations - sum(each["operations"] for each in blocks)) // chosen.each)
    numbers = [number for number, _ in zip((n for n in count(1) if n not in done), range(wanted), strict=False)]
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for result in pool.map(lambda number: play(chosen.seed, number, chosen.each), numbers):
            blocks.append(result)
            print(line(result), flush=True)
            if chosen.results:
                write(chosen.results, blocks)
    print(json.dumps(summary(blocks), indent=1))
    broken = [each for each in blocks if each["violations"]]
    for each in broken:
        print(f"\nblock {each['block']} of seed {each['seed']}:", *each["violations"], sep="\n  ", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
