"""`./dev torture --kills N --results FILE`: kills of real workers under load, in rounds, and what the promises say to it.

Each round runs in a process and a home of its own. Its result is kept as it ends, so a second call goes on where the first one
stopped. The exit code is 0 when there were as many kills as asked for and no violation.
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
EACH = 50
ROUND_TIMEOUT_S = 400
TTL_S = 4.0
"""The default of `incarnation_ttl_s`, for which the promise of 5 seconds is made."""
BACK_WITHIN_MS = 5_000
GAP_S = 0.8
"""The longest time between two kills."""


def play(
    number: int, home: Path, kills: int, ttl_s: float = TTL_S, gap_s: float = GAP_S, timeout_s: float = ROUND_TIMEOUT_S
) -> dict[str, Any]:
    """Run one round in a process of its own and return its result; the home of one without violations is removed."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    argv = [sys.executable, "-m", "benchmarks.torture.round", str(number), str(home), str(kills), str(ttl_s), str(gap_s)]
    with (home / "round.log").open("wb") as log:
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return _broken(number, f"did not end within {timeout_s:g} s")
    said = done.stdout.decode().strip().splitlines()
    if not said:
        return _broken(number, f"ended with code {done.returncode}: {(home / 'round.log').read_text()[-500:]}")
    result: dict[str, Any] = json.loads(said[-1])
    if not result["violations"]:
        shutil.rmtree(home, ignore_errors=True)
    return result


def _broken(number: int, why: str) -> dict[str, Any]:
    return {"round": number, "kills": 0, "kinds": {}, "ms": {}, "violations": [f"harness: {why}"]}


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all rounds."""
    kinds: Counter[str] = Counter()
    ms: dict[str, list[int]] = {"back": [], "group": [], "child": []}
    for each in rounds:
        kinds.update(each["kinds"])
        for name, found in each["ms"].items():
            ms[name] += found
    sums = ("kills", "ordinary", "nodes", "executions", "killed_executions", "incarnations_dead", "dead_letters", "failed_nodes")
    return {
        **{name: sum(each.get(name, 0) for each in rounds) for name in sums},
        "kinds": dict(kinds),
        "violations": sum(len(each["violations"]) for each in rounds),
        "ms": {name: _quantiles(sorted(found)) for name, found in ms.items() if found},
        "back_later_than_promised": sum(at > BACK_WITHIN_MS for at in ms["back"]),
    }


def _quantiles(found: list[int]) -> dict[str, int]:
    return {
        "count": len(found),
        "median": int(statistics.median(found)),
        "p90": found[int(0.9 * (len(found) - 1))],
        "p99": found[int(0.99 * (len(found) - 1))],
        "longest": found[-1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev torture", description="Kill real workers under load, and check the promises.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--each", type=int, default=EACH, help="kills of one round (default: %(default)s)")
    parser.add_argument("--ttl-s", type=float, default=TTL_S, help="silence that means death (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="file for the results; rounds that are in it are not played again")
    parser.add_argument("--home", type=Path, help="directory for the homes of the rounds; those of rounds with violations are kept")
    chosen = parser.parse_args()
    if chosen.kills < 1 or not 1 <= chosen.each <= 1000 or chosen.ttl_s <= 0:
        parser.error("--kills is from 1, --each from 1 to 1000, --ttl-s above 0")
    rounds = json.loads(chosen.results.read_text())["rounds"] if chosen.results and chosen.results.exists() else []
    base = chosen.home or Path(tempfile.mkdtemp(prefix="headgate-torture-"))
    machine = {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
    failures = 0
    while (left := chosen.kills - sum(each["kills"] for each in rounds)) > 0:
        number = 1 + max((each["round"] for each in rounds), default=0)
        rounds.append(play(number, base / f"round-{number}", min(left, chosen.each), chosen.ttl_s))
        print(line(rounds[-1]), flush=True)
        if chosen.results:
            _write(chosen.results, machine, chosen.ttl_s, rounds)
        failures = failures + 1 if rounds[-1]["kills"] == 0 else 0
        if failures == 3:
            print("three rounds in a row killed nothing; giving up", file=sys.stderr)
            return 1
    print(json.dumps(summary(rounds), indent=1))
    broken = [each for each in rounds if each["violations"]]
    if not broken and chosen.home is None:
        shutil.rmtree(base, ignore_errors=True)
    for each in broken:
        print(
            f"\nround {each['round']}: logs are in {base / 'round-'}{each['round']}", *each["violations"][:20], sep="\n  ", file=sys.stderr
        )
    return 1 if broken else 0


def _write(file: Path, machine: dict[str, Any], ttl_s: float, rounds: list[dict[str, Any]]) -> None:
    """Write all results in one step, one line for each round."""
    rows = ",\n".join("  " + json.dumps(each) for each in rounds)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    head = json.dumps({"machine": machine, "ttl_s": ttl_s, "summary": summary(rounds)})[:-1]
    fresh.write_text(f'{head},\n "rounds": [\n{rows}\n]}}\n')
    fresh.replace(file)


def line(result: dict[str, Any]) -> str:
    """Return what happened in a round in one line."""
    verdict = "ok" if not result["violations"] else f"{len(result['violations'])} VIOLATIONS"
    back = result["ms"].get("back") or [0]
    return (
        f"round {result['round']:3}  {verdict:13} {result['kills']} kills {result['kinds']}, {result.get('executions', 0)} executions, "
        f"{result.get('killed_executions', 0)} of them killed, back after at most {max(back)} ms, {result.get('duration_s', 0)} s"
    )


if __name__ == "__main__":
    sys.exit(main())
