"""`./dev plans --graphs N --results FILE`: random graphs and real workflows planned down, each held against an exact solver.

Each graph comes from the seed and its number: `--only NUMBER` plans one again. Results are kept as they come, so a second call goes on
where the first one stopped. The exit code is 0 when every promise held for every graph.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.harness import commit
from benchmarks.plans.graphs import WORKFLOWS, Case, case, workflow
from benchmarks.plans.trial import NODES_MAX, trial


def cases(seed: int, graphs: int) -> dict[str, Any]:
    """Return how to make each case, by its name in the results."""
    made: dict[str, Any] = {path.stem: lambda path=path: workflow(path, seed) for path in WORKFLOWS}
    return made | {str(number): lambda number=number: case(seed, number) for number in range(1, graphs + 1)}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all graphs."""
    small = [row["kept"] for row in rows if row["nodes"] <= NODES_MAX]
    large = [row["kept"] for row in rows if row["nodes"] > NODES_MAX]
    return {
        "graphs": len(rows),
        "least kept of the optimum": min(small, default=None),
        "mean": round(sum(small) / len(small), 5) if small else None,
        "graphs above 2,000 nodes": len(large),
        "least kept of the bound above": min(large, default=None),
        "exact": sum(row["exact"] for row in rows),
        "played to their end": sum(bool(row["played"]) for row in rows),
        "slowest, CPU ms": max((row["ms"] for row in rows), default=None),
        "problems": sum(len(row["problems"]) for row in rows),
    }


def write(file: Path, seed: int, rows: dict[str, dict[str, Any]]) -> None:
    """Write all results in one step, one line for each graph."""
    machine = {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version(), "scipy": version("scipy")}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    head = json.dumps({"commit": commit(), "machine": machine, "seed": seed, "summary": summary(list(rows.values()))})[:-1]
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(f'{head},\n "graphs": {{\n{lines}\n}}}}\n')
    fresh.replace(file)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev plans", description="Plans of random graphs and real workflows beside an exact solver.")
    parser.add_argument("--graphs", type=int, default=200, help="random graphs beside the real workflows (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="plan this random graph, and print what became of it")
    parser.add_argument("--results", type=Path, help="file for the results; graphs that are in it are not planned again")
    chosen = parser.parse_args()
    if not 0 <= chosen.graphs <= 100_000:
        parser.error("--graphs is from 0 to 100000")
    if chosen.only is not None:
        found = trial(case(chosen.seed, chosen.only))
        print(json.dumps(found.row(), indent=1))
        return 1 if found.problems else 0
    rows: dict[str, dict[str, Any]] = {}
    if chosen.results and chosen.results.exists():
        before = json.loads(chosen.results.read_text())
        if before["seed"] != chosen.seed:
            parser.error(f"{chosen.results} holds results of seed {before['seed']}; give it another name")
        rows = before["graphs"]
    for name, make in cases(chosen.seed, chosen.graphs).items():
        if name in rows:
            continue
        made: Case = make()
        rows[name] = row = trial(made).row()
        told = "ok" if not row["problems"] else f"{len(row['problems'])} PROBLEMS"
        print(f"{told:11} {made.name:40} {row['nodes']:6} nodes, kept {row['kept']:.4f}, {row['ms']:.0f} ms", flush=True)
        if chosen.results:
            write(chosen.results, chosen.seed, rows)
    print(json.dumps(summary(list(rows.values())), indent=1))
    broken = {name: row["problems"] for name, row in rows.items() if row["problems"]}
    for name, problems in broken.items():
        print(f"\n{name}:", *problems, sep="\n  ", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
