"""`./dev bench transport [--rounds N] [--tenants N..] [--json FILE] [--profile]`: no-ops a second by number of tenants.

Systems take turns. Every measurement has a Redis of its own, the same messages published before its worker starts, and one prefork worker
with -c 2, prefetch 1 and late acknowledgements. `fair` is a bare Celery app on the fair transport, the same as the stock one but for
that; `headgate` is the product's own worker; `stock, no acks` loses what a dying worker holds, and is the ceiling.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import Spread, commit, machine, ratios
from benchmarks.transport import profiled
from benchmarks.transport.measure import EACH, FAIR, ONE, PRODUCT, UNSAFE, Measured, System, measure

TENANTS = (1, 10, 100, 1000, 5000)
MESSAGES = 4000
LONGEST_S = 8.0
"""A case that is slower than `MESSAGES` in this time is measured by what it did in it."""
FLAT, FASTER = 0.9, 1.2
"""Promises: with the most tenants at least this part of what one tenant gets, and with one tenant this many times stock Celery."""

Cell = tuple[str, int]


def cases(tenants: tuple[int, ...], *, compared: bool) -> list[tuple[System, int]]:
    """Return what one round measures, in order: first, side by side, what the promises compare, or only that if `compared`."""
    first, last = tenants[0], tenants[-1]
    found = [(PRODUCT, first), (FAIR, first), (ONE, first), (FAIR, last), (PRODUCT, last)]
    if compared:
        return found
    found += [(EACH, last), (UNSAFE, first)]
    found += [(system, count) for count in tenants for system in (FAIR, ONE, EACH)]
    return list(dict.fromkeys(found))


def run(tenants: tuple[int, ...], rounds: int, messages: int, *, compared: bool) -> dict[str, Any]:
    """Measure everything `rounds` times, forwards and backwards in turn; return the results as JSON has them."""
    started = time.monotonic()
    results: dict[str, Any] = {"commit": commit(), "machine": machine(), "rounds": rounds, "messages": messages}
    found: dict[Cell, list[Measured]] = defaultdict(list)
    for number in range(rounds):
        todo = cases(tenants, compared=compared)
        for system, count in todo if number % 2 == 0 else reversed(todo):
            # With more tenants than messages some would have none.
            found[system.name, count].append(measure(system, count, max(messages, count + 1000), LONGEST_S))
            print(f"round {number + 1} of {rounds}: {system.name}, {count}: {found[system.name, count][-1].rate:.0f}/s", file=sys.stderr)
    results["machine"]["load_after"] = round(os.getloadavg()[0], 1)
    results["seconds"] = round(time.monotonic() - started)
    results["cells"] = [
        {"system": name, "tenants": count, "rate": asdict(Spread.of(each.rate for each in row)), "rounds": [each.row() for each in row]}
        for (name, count), row in found.items()
    ]
    results["ratios"] = {title: asdict(ratio) for title, ratio in promises(found, tenants).items()}
    print("\n" + table(found, tenants))
    for title, ratio in promises(found, tenants).items():
        print(f"{title}: {ratio:.2f}")
    return results


def promises(found: dict[Cell, list[Measured]], tenants: tuple[int, ...]) -> dict[str, Spread]:
    """Return the ratios that are promised, round by round, and those of CPU, which say more where other work shares the machine."""

    def of(system: System, count: int) -> list[float]:
        return [each.rate for each in found.get((system.name, count), ())]

    def cpu(system: System, count: int) -> list[float]:
        return [sum(each.cpu_us.values()) for each in found.get((system.name, count), ())]

    first, last = tenants[0], tenants[-1]
    return {
        f"CPU of a task, fair at {first} / fair at {last}": ratios(cpu(FAIR, last), cpu(FAIR, first)),
        f"CPU of a task, stock with one queue / fair, at {first}": ratios(cpu(FAIR, first), cpu(ONE, first)),
        f"fair at {last} / fair at {first} (promise: {FLAT})": ratios(of(FAIR, first), of(FAIR, last)),
        f"headgate at {last} / headgate at {first} (promise: {FLAT})": ratios(of(PRODUCT, first), of(PRODUCT, last)),
        f"fair / stock with one queue at {first} (promise: {FASTER})": ratios(of(ONE, first), of(FAIR, first)),
        f"headgate / stock with one queue at {first}": ratios(of(ONE, first), of(PRODUCT, first)),
        **({f"fair / stock with a queue each at {last}": ratios(of(EACH, last), of(FAIR, last))} if of(EACH, last) else {}),
    }


def table(found: dict[Cell, list[Measured]], tenants: tuple[int, ...]) -> str:
    """Return the rates as Markdown: median (least-greatest) tasks a second."""
    measured = {name for name, _ in found}
    names = [system.name for system in (FAIR, PRODUCT, ONE, EACH, UNSAFE) if system.name in measured]
    rows = ["| tasks a second | " + " | ".join(f"{count} tenants" for count in tenants) + " |", "|---|" + "---:|" * len(tenants)]
    for name in names:
        cells = [f"{Spread.of(each.rate for each in found[name, count]):.0f}" if (name, count) in found else "" for count in tenants]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench transport", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tenants", type=int, nargs="+", default=TENANTS)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--compared", action="store_true", help="only what the promises compare, for more rounds in the same time")
    parser.add_argument("--profile", action="store_true", help="profile our worker's main process instead, by cProfile")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.rounds <= 100 or min(chosen.tenants) < 1 or chosen.messages < 100:
        parser.error("--rounds is from 1 to 100, --tenants from 1, --messages from 100")
    if chosen.profile:
        profiled.profile(FAIR, chosen.tenants[-1], chosen.messages)
        return 0
    results = run(tuple(chosen.tenants), chosen.rounds, chosen.messages, compared=chosen.compared)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
